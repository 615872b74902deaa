"""Which operator an `op=` argument names: functions of this dialect, of NumPy or jax.numpy, or their names."""

from __future__ import annotations

from typing import Any

import numpy as np

from nkilite import language
from nkilite.isa.operators import Op, name_of

_known: dict[object, object] = {}
_NUMPY = {
    "amax": "maximum", "amin": "minimum", "max": "maximum", "min": "minimum", "sum": "add", "prod": "multiply",
    "copy": "copy", "mean": "average", "any": "logical_or", "all": "logical_and",
}


def operator(op: Op | None) -> Any:
    """The nkilite.language function of an operator, or what was passed: the instruction then says what it takes."""
    if op is None:
        return None
    try:
        return _known[op]
    except (KeyError, TypeError):  # new, or unhashable
        found = None
    found = _find(op)
    if callable(op) or isinstance(op, str):
        _known[op] = found
    return found


def _find(op: Op) -> object:
    module = getattr(op, "__module__", None) or ""
    name = getattr(op, "__name__", None)
    if module.startswith("nkilite.beta1"):
        return getattr(language, _NUMPY.get(name or "", name or ""), op)
    if isinstance(op, str):
        return getattr(language, _NUMPY.get(op, op), op)
    if module.partition(".")[0] in ("numpy", "jax") or isinstance(op, np.ufunc):
        known = _NUMPY.get(name or "") or name_of(op) or name
        return getattr(language, known or "", op)
    return op
