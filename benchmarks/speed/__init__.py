"""Speed of compiled kernels against peers: a module per kind of work, each a function `matches(threads)`."""

from __future__ import annotations

SUBJECTS = ("matmul", "sparse", "rounding", "rows", "elementwise", "attention", "scan", "launch", "simulate", "scaling")
