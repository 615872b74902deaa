"""What the caller of a kernel sees of an exception: none of our frames, and a typed error for every mistake."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable
from types import FrameType, TracebackType

from nkilite import isa, language
from nkilite.errors import InternalError, InvalidCall, KernelRecursion, NkiError, NumberTooLarge
from nkilite.location import UNKNOWN, Location, is_internal
from nkilite.trace.tensor import NkiTensor

# What nkilite calls: an exception from there, under one of our frames, is ours.
_LIBRARIES = {"numpy", "ml_dtypes", "llvmlite", *sys.stdlib_module_names} - {"__main__"}
_OF_SIZE = re.compile(r"Exceeds the limit .* for integer string conversion|Maximum allowed dimension exceeded")
_BINDING = re.compile(r"([\w.]+)\(\) ((?:got|missing|takes) .*)", re.DOTALL)


def presented(error: Exception, kernel: str) -> Exception:
    """The exception to raise from a kernel call in the place of `error`, with the frames of user code alone.

    Errors of nkilite and of the user's own code stay what they are, calls of our functions with arguments they do
    not have become InvalidCall, attributes that our tensors do not have UnknownName, endless recursion KernelRecursion,
    and everything else is our failure.
    """
    frames = _frames(error)
    users = [f for f in frames if not is_internal(f.tb_frame.f_code.co_filename)]
    if isinstance(error, RecursionError) and not isinstance(error, NkiError):
        shown: Exception = KernelRecursion(
            kernel=kernel, limit=sys.getrecursionlimit(), location=_most_repeated(users)
        )
        return shown.with_traceback(None)
    at_users = bool(users) and users[-1] is frames[-1]
    if isinstance(error, TypeError) and at_users:
        shown = _explained(error, users[-1]) or error
    elif isinstance(error, AttributeError) and at_users:
        shown = _unknown(error, users[-1]) or error
    elif isinstance(error, (NkiError, Warning, MemoryError, OSError)) or _raised_by_user(frames):
        shown = error
    else:
        where = _location(users[-1]) if users else UNKNOWN
        if _is_of_size(error):
            return NumberTooLarge(problem=error, location=where).with_traceback(_linked(users))
        shown = InternalError(type=type(error).__name__, message=error, location=where)
        shown.__cause__ = error
        return shown
    return shown.with_traceback(_linked(users))


def _is_of_size(error: Exception) -> bool:
    """Whether Python or NumPy refuse an integer because of its size: one that a user gave, for ours are small."""
    if isinstance(error, ValueError):
        return _OF_SIZE.match(str(error)) is not None
    return isinstance(error, OverflowError)


def _frames(error: BaseException) -> list[TracebackType]:
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append(trace)
        trace = trace.tb_next
    return frames


def _linked(frames: list[TracebackType]) -> TracebackType | None:
    """A traceback of these entries alone."""
    if not frames:
        return None
    for outer, inner in zip(frames, [*frames[1:], None], strict=True):
        outer.tb_next = inner
    return frames[0]


def _location(entry: TracebackType) -> Location:
    code = entry.tb_frame.f_code
    return Location(code.co_filename, entry.tb_lineno, code.co_name)


def _most_repeated(entries: list[TracebackType]) -> Location:
    counts = Counter(map(_location, entries))
    return counts.most_common(1)[0][0] if counts else UNKNOWN


def _raised_by_user(frames: list[TracebackType]) -> bool:
    """Whether an exception came from user code, or from a library that user code called, rather than from ours."""
    for entry in reversed(frames):
        if is_internal(entry.tb_frame.f_code.co_filename):
            return False
        if _module(entry.tb_frame).partition(".")[0] not in _LIBRARIES:
            return True
    return True


def _module(frame: FrameType) -> str:
    result: str = frame.f_globals.get("__name__", "")
    return result


def _explained(error: TypeError, entry: TracebackType) -> InvalidCall | None:
    """The error for a call of a public function with arguments it does not have; None for other TypeErrors."""
    match = _BINDING.fullmatch(str(error))
    if match is None or isinstance(error, NkiError):
        return None
    name, problem = match.groups()
    function = _public(name, entry.tb_frame)
    if function is None:
        return None
    parameters = [p for p in inspect.signature(function).parameters.values() if p.name != "self"]
    signature = inspect.Signature([p.replace(annotation=p.empty) for p in parameters])
    return InvalidCall(function=name, problem=problem, signature=signature, location=_location(entry))


def _unknown(error: AttributeError, entry: TracebackType) -> NkiError | None:
    """The error for an attribute that a tensor of ours does not have; None for other AttributeErrors."""
    of_ours = getattr(type(error.obj), "unknown_attribute", None)
    if of_ours is None or isinstance(error, NkiError):
        return None
    found: NkiError = of_ours(error.name)
    return type(found)(location=_location(entry), **found.fields)


def _public(name: str, frame: FrameType) -> Callable[..., object] | None:
    """Our function of that name, unless the frame has another one."""
    owner, _, method = name.rpartition(".")
    if owner:
        return getattr(NkiTensor, method, None) if owner == "NkiTensor" else None
    found = [f for module in (isa, language) if callable(f := vars(module).get(name))]
    own = frame.f_locals.get(name, frame.f_globals.get(name))
    if own is not None and own not in found:
        return None
    return next(iter(found), None)
