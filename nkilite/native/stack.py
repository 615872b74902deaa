"""Room on the stack: micro-kernels keep scratch there, LLVM recurses, and threads may have as little as 64 KiB."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

from nkilite import forking

LARGE = 16 << 20  # bytes of the stacks that this package makes
LITTLE = 16 << 10  # what fits into any stack
COMPILER = 1 << 20  # what LLVM may need
_USED = 96 << 10  # of a stack, by Python and what calls it, where a launch begins
_UNKNOWN = 256 << 10  # taken for the size where the system does not tell

_Result = TypeVar("_Result")
_local = threading.local()
_starting = forking.lock()


def fits(bytes: int) -> bool:
    """Whether this thread's stack has room for so many bytes."""
    try:
        size = _local.size
    except AttributeError:
        size = _local.size = _size()
    result: bool = bytes + _USED <= size
    return result


def with_room(bytes: int, function: Callable[..., _Result], *arguments: object) -> _Result:
    """Call a function where the stack has room for so many bytes: here, or on a thread of its own."""
    if fits(bytes):
        return function(*arguments)
    results: list[_Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        _local.size = stack
        try:
            results.append(function(*arguments))
        except BaseException as error:
            errors.append(error)

    stack = max(LARGE, bytes + _USED)
    thread = threading.Thread(target=run, name="nkilite stack")
    with _starting:
        before = threading.stack_size(stack)
        try:
            thread.start()
        finally:
            threading.stack_size(before)
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _size() -> int:
    """Bytes of this thread's stack."""
    system = ctypes.CDLL(None)
    me = ctypes.c_void_p(threading.get_ident())
    if hasattr(system, "pthread_get_stacksize_np"):
        system.pthread_get_stacksize_np.restype = ctypes.c_size_t
        result: int = system.pthread_get_stacksize_np(me)
        return result
    if not hasattr(system, "pthread_getattr_np"):
        return _UNKNOWN
    attributes = (ctypes.c_char * 256)()  # larger than the type is anywhere
    low, size = ctypes.c_void_p(), ctypes.c_size_t()
    if system.pthread_getattr_np(me, attributes):
        return _UNKNOWN
    failed = system.pthread_attr_getstack(attributes, ctypes.byref(low), ctypes.byref(size))
    system.pthread_attr_destroy(attributes)
    return _UNKNOWN if failed else size.value
