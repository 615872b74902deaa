"""Calling kernels: arguments, tracing, specializations and what identifies them, launches, results."""
