"""The process that the engine runs in: its threads, its memory, its exit, and its forks."""
