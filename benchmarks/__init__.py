"""Measurements that take long, or need peers or other checkouts; `python -m benchmarks` lists them."""
