"""Passes over a traced Program, one per file; pipeline.py says in which order."""
