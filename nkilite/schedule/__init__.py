"""From a Program to its Schedule: how a CPU runs it.

`schedule.py` is what passes decide, one pass per file; `pipeline.py` says in which order, `verifier.py` checks what
they leave, `printer.py` is its text.
"""
