"""The parts of the retention study, `benchmarks/retention.py`."""
