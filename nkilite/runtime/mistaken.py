"""A list, a number or None in the place of an array: the error that names the parameter it came in by.

Such values are compile-time values, which kernels may take, so that only the use as a tensor shows the mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import TracebackType

from nkilite.errors import NkiError, NotAnArray, describe
from nkilite.location import Location, is_internal
from nkilite.trace.tensor import NkiTensor

_INDICES = re.compile(r"(list|tuple) indices must be integers or slices, not \w+|'(\w+)' object is not subscriptable")
_VALUES = (list, tuple, dict, int, float, complex, str, type(None))


def explained(error: Exception, passed: Mapping[str, object], kernel: str) -> NotAnArray | None:
    """The error to raise in the place of one that a kernel function ended with; None if it is about something else."""
    user = last = None
    trace = error.__traceback__
    while trace is not None:
        if not is_internal(trace.tb_frame.f_code.co_filename):
            user, last = trace, None
        elif last is None:
            last = trace  # the first of our frames that the user's line called
        trace = trace.tb_next
    if user is None:
        return None
    use = ""
    if isinstance(error, AttributeError) and not isinstance(error, NkiError):
        use, suspects = f".{error.name}", [error.obj] if hasattr(NkiTensor, error.name or "") else []
    elif isinstance(error, NkiError):
        suspects = [] if last is None else [v for v in last.tb_frame.f_locals.values() if isinstance(v, (list, tuple))]
    elif isinstance(error, TypeError) and _INDICES.match(str(error)):
        use, suspects = "[...]", list(user.tb_frame.f_locals.values())
    else:
        return None
    for suspect in suspects:
        names = [n for n, value in _held(passed) if value is suspect] if isinstance(suspect, _VALUES) else []
        if names and (use != "[...]" or isinstance(suspect, (list, tuple, type(None), float, int))):
            return NotAnArray(name=_likeliest(names, user), kernel=kernel, found=describe(suspect), use=use,
                              location=_line(user))
    return None


def _held(passed: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The values of parameters, and what is in lists and tuples among them."""
    for name, value in passed.items():
        yield name, value
        if isinstance(value, (list, tuple)):
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value))


def _likeliest(names: list[str], entry: TracebackType) -> str:
    """Of several parameters with one value, such as None, the one that stands in the line."""
    source = _line(entry).source
    return next((n for n in names if re.search(rf"\b{re.escape(n)}\b", source)), names[0])


def _line(entry: TracebackType) -> Location:
    code = entry.tb_frame.f_code
    return Location(code.co_filename, entry.tb_lineno, code.co_name)
