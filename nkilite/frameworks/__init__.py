"""Kernels in machine learning frameworks: what their compilers, tracers and gradients need to know of a kernel."""
