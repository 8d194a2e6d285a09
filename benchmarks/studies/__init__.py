"""Single questions, each a script that measures and prints: `python -m benchmarks.studies.NAME`."""
