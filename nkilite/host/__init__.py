"""The CPU that code is made for: what it can compute, how its memory is made, and the compiler that knows it."""
