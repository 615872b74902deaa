"""Random tile programs run in every way nkilite can run them: `python -m conformance fuzz`."""
