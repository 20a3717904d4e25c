"""Other libraries' own loops, over the same pictures and in the same run as ours. `python -m benchmarks --peers`."""
