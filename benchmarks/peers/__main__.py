"""`python -m benchmarks.peers`: see benchmarks/harness/compare.py."""

from benchmarks.harness.compare import main

main()
