"""The front end: tensors, the active builder, and the decorator that makes instructions."""
