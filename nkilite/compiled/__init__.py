"""Python functions over arrays of numbers, as machine code.

A `@compiled` function is ordinary Python: annotated ints, floats and one-dimensional arrays, loops, conditions, and
calls of other such functions. Large inputs run as machine code made of its source, small ones as the Python they are,
with the same results bit for bit.
"""

from nkilite.compiled.function import Compiled, Floats, Ints, compiled
from nkilite.compiled.interface import Instruction, NotTranslatable

__all__ = ["Compiled", "Floats", "Instruction", "Ints", "NotTranslatable", "compiled"]
