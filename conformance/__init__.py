"""Runs unmodified public NKI kernels on nkilite and checks them against independent NumPy references.

``python -m conformance FOLDER...`` finds the known kernels in checkouts of public repositories, runs each
one simulated and compiled, for every target, and prints a pass/fail table. Nothing of those repositories is
stored here: kernels are imported from the checkout, and code blocks of documentation are extracted when the
run starts.
"""
