"""Custom operators on the GpSimd Engine, in C++: `operator` makes an instruction of a function of the user's."""

from nkilite.gpsimd.operator import Operator, operator

__all__ = ["Operator", "operator"]
