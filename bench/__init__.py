"""The benchmarks: one file per operation, one adapter per rival. `python bench/run.py` runs everything."""
