"""Compiling, caching and running kernels."""
