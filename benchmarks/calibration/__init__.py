"""`python -m benchmarks calibration FOLDER`: the timing model against published measurements."""
