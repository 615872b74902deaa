"""Measurements that take long or need other checkouts; run as modules."""
