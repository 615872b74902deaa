"""The way into native code that warm launches take: a built-in function that is called with the arrays themselves.

`entry(input, ..., output, ...)` is written in LLVM IR and takes the addresses of elements out of NumPy's array
objects, which Python code could only do in microseconds. It refuses arrays that are not contiguous, aligned or, where
they are written, writable, and outputs that overlap other arrays: whoever calls it then takes the slow way, which
copies or raises. It lets go of the interpreter lock while the kernel runs.

A second one is called with addresses as Python's integers, for tensors of other libraries.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from nkilite.codegen.watch import STOP, WATCH
from nkilite.host.cpu import Host
from nkilite.native.interrupts import python_function
from nkilite.native.library import Source, library

REFUSED = -1

# Offsets in a PyArrayObject, the same in all of NumPy 1 and 2 on CPython: behind the object's head (reference count and
# type) come data, number of dimensions, dimensions, strides, base, dtype, flags.
_DATA, _FLAGS = 16, 64
CONTIGUOUS, ALIGNED, WRITEABLE = 0x1, 0x100, 0x400

_METH_FASTCALL = 0x80
_FUNCTIONS = "PyEval_SaveThread", "PyEval_RestoreThread", "PyLong_FromLongLong", "PyLong_AsLongLong"
# What an entry knows, as int64 words: functions, the walk's arguments, counts, a record per array and per range that
# is zero when a kernel begins.
_WALK, _TABLE, _COUNT, _BASES, _SAVE, _RESTORE, _NUMBER, _INTEGER, _ARRAYS, _ZEROED, _RECORDS = range(11)
_SLOT, _NEEDED, _UNEVEN, _BYTES, _ALONE, _RECORD = range(6)


class Passed(NamedTuple):
    """An array an entry is called with.

    Attributes:
        slot: its place among the bases.
        flags: those it must have as an array.
        uneven: bits that its address must not have.
        bytes: of its elements.
        alone: it may not overlap any other.
    """

    slot: int
    flags: int
    uneven: int
    bytes: int
    alone: bool


def _field(name: str, index: int, kind: str = "i64") -> str:
    return (
        f"  %{name}_ptr = getelementptr i64, ptr %words, i64 {index}\n"
        f"  %{name} = load {kind}, ptr %{name}_ptr, align 8\n"
    )


def _of_record(name: str, array: str, field: int) -> str:
    return (
        f"  %{name}_row = mul i64 {array}, {_RECORD}\n"
        f"  %{name}_at = add i64 %{name}_row, {_RECORDS + field}\n"
        f"  %{name}_ptr = getelementptr i64, ptr %words, i64 %{name}_at\n"
        f"  %{name} = load i64, ptr %{name}_ptr, align 8\n"
    )


def _object(name: str, array: str) -> str:
    return (
        f"  %{name}_arg = getelementptr ptr, ptr %args, i64 {array}\n"
        f"  %{name}_object = load ptr, ptr %{name}_arg, align 8\n"
    )


def _data_of_array(name: str, array: str) -> str:
    return (
        f"{_object(name, array)}"
        f"  %{name}_field = getelementptr i8, ptr %{name}_object, i64 {_DATA}\n"
        f"  %{name} = load i64, ptr %{name}_field, align 8\n"
    )


def _data_of_integer(name: str, array: str) -> str:
    return f"{_object(name, array)}  %{name} = call i64 %integer(ptr %{name}_object)\n"


_ARRAY_FITS = f"""{_of_record("needed", "%i", _NEEDED)}
  %flags_field = getelementptr i8, ptr %data_object, i64 {_FLAGS}
  %flags_short = load i32, ptr %flags_field, align 4
  %flags = zext i32 %flags_short to i64
  %had = and i64 %flags, %needed
  %fits = icmp eq i64 %had, %needed
"""
# No address is negative: that stands for memory that does not fit for reasons of its library's own.
_INTEGER_FITS = f"""{_of_record("uneven", "%i", _UNEVEN)}
  %low = and i64 %data, %uneven
  %even = icmp eq i64 %low, 0
  %some = icmp sgt i64 %data, 0
  %fits = and i1 %even, %some
"""


#: Goes from block `zeroing` to `run`, clearing the memory of the %zeroed pairs of address and bytes at %ranges.
ZERO_RANGES = """\
  br label %range
range:
  %r = phi i64 [ 0, %zeroing ], [ %r_next, %zero ]
  %ranged = icmp ult i64 %r, %zeroed
  br i1 %ranged, label %zero, label %run
zero:
  %r_row = shl i64 %r, 1
  %range_ptr = getelementptr i64, ptr %ranges, i64 %r_row
  %range_start = load ptr, ptr %range_ptr, align 8
  %size_ptr = getelementptr i8, ptr %range_ptr, i64 8
  %range_size = load i64, ptr %size_ptr, align 8
  call void @llvm.memset.p0.i64(ptr %range_start, i8 0, i64 %range_size, i1 false)
  %r_next = add i64 %r, 1
  br label %range
"""


# Runs the table and gives what stopped it; a launch that was told to stop raises.
_RUN = f"""run:
  %state = call ptr %save()
  %stopped = call i64 %walk(ptr %table, i64 0, i64 %count, ptr %bases)
  call void %restore(ptr %state)
  %told_at = getelementptr i8, ptr %bases, i64 {WATCH}
  %watch = load ptr, ptr %told_at, align 8
  %stop_at = getelementptr i8, ptr %watch, i64 {STOP}
  %stop = load i64, ptr %stop_at, align 8
  %told = icmp ne i64 %stop, 0
  br i1 %told, label %raise, label %give
give:
  %result = call ptr %number(i64 %stopped)
  ret ptr %result
raise:
  ret ptr null
"""


def _entry(name: str, data_of: Callable[[str, str], str], fits: str) -> Source:
    return Source(name, f"""
define ptr @{name}(ptr %self, ptr %args, i64 %given) {{
entry:
  %words_field = getelementptr i8, ptr %self, i64 {_DATA}
  %words = load ptr, ptr %words_field, align 8
{_field("walk", _WALK, "ptr")}{_field("table", _TABLE, "ptr")}{_field("count", _COUNT)}{_field("bases", _BASES, "ptr")}\
{_field("save", _SAVE, "ptr")}{_field("restore", _RESTORE, "ptr")}{_field("number", _NUMBER, "ptr")}\
{_field("integer", _INTEGER, "ptr")}{_field("arrays", _ARRAYS)}{_field("zeroed", _ZEROED)}
  %expected = icmp eq i64 %given, %arrays
  br i1 %expected, label %begin, label %refuse
begin:
  br label %array
array:
  %i = phi i64 [ 0, %begin ], [ %i_next, %accepted ]
  %more = icmp ult i64 %i, %arrays
  br i1 %more, label %look, label %zeroing
look:
{data_of("data", "%i")}{_of_record("slot", "%i", _SLOT)}\
{_of_record("bytes", "%i", _BYTES)}{_of_record("alone", "%i", _ALONE)}{fits}  br i1 %fits, label %fitting, label %refuse
fitting:
  %base = getelementptr i64, ptr %bases, i64 %slot
  store i64 %data, ptr %base, align 8
  %end = add i64 %data, %bytes
  %shared = icmp eq i64 %alone, 0
  br i1 %shared, label %accepted, label %other
other:
  %j = phi i64 [ 0, %fitting ], [ %j_next, %apart ]
  %others = icmp ult i64 %j, %arrays
  br i1 %others, label %compare, label %accepted
compare:
{data_of("theirs", "%j")}{_of_record("their_bytes", "%j", _BYTES)}
  %their_end = add i64 %theirs, %their_bytes
  %starts = icmp ult i64 %theirs, %end
  %ends = icmp ult i64 %data, %their_end
  %overlaps = and i1 %starts, %ends
  %different = icmp ne i64 %i, %j
  %clash = and i1 %overlaps, %different
  br i1 %clash, label %refuse, label %apart
apart:
  %j_next = add i64 %j, 1
  br label %other
accepted:
  %i_next = add i64 %i, 1
  br label %array
zeroing:
  %records = mul i64 %arrays, {_RECORD}
  %behind = add i64 %records, {_RECORDS}
  %ranges = getelementptr i64, ptr %words, i64 %behind
{ZERO_RANGES}{_RUN}refuse:
  %refused = call ptr %number(i64 {REFUSED})
  ret ptr %refused
}}
""", ("declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)",))


_OF_ARRAYS = _entry("nkilite_entry", _data_of_array, _ARRAY_FITS)
_OF_ADDRESSES = _entry("nkilite_entry_of_addresses", _data_of_integer, _INTEGER_FITS)


class _MethodDefinition(ctypes.Structure):
    """A PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p), ("function", ctypes.c_void_p), ("flags", ctypes.c_int), ("doc", ctypes.c_char_p),
    )


@functools.cache
def _definition(host: Host, source: Source) -> _MethodDefinition:
    """The same for all entries of a kind, which refer to it as long as they live."""
    function = library(host).addresses([source])[source.name]
    made = _MethodDefinition(b"entry", function, _METH_FASTCALL, None)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(made))  # for ever: of two that threads make at once, one is forgotten
    return made


@functools.cache
def available() -> bool:
    """Whether array objects are laid out as the entry takes them to be: in CPython, unless built without the lock."""
    probe = np.zeros((2, 3), np.float32)[:, 1:]
    if type(probe).__basicsize__ < _FLAGS + 8 or object.__basicsize__ != _DATA:
        return False
    data = ctypes.c_int64.from_address(id(probe) + _DATA).value
    flags = ctypes.c_int.from_address(id(probe) + _FLAGS).value
    return data == probe.ctypes.data and flags == probe.flags.num


class Entries(NamedTuple):
    """The entries of one workspace. They return what the walk does, or REFUSED.

    Attributes:
        arrays: called with arrays; nothing checks that these are NumPy's, of the right sizes.
        addresses: called with addresses of as much memory; a negative one is refused.
    """

    arrays: Callable[..., int]
    addresses: Callable[..., int]


def make_entries(
    host: Host, walk: int, table: np.ndarray, bases: int, passed: Sequence[Passed], zeroed: Sequence[np.ndarray]
) -> Entries:
    """The entries for one workspace.

    Args:
        walk: address of the native loop.
        bases: address of the workspace's bases.
        passed: what they will be called with.
        zeroed: memory of the workspace that is zero when a kernel begins.
    """
    words = [
        walk, table.ctypes.data, len(table), bases, *map(python_function, _FUNCTIONS), len(passed), len(zeroed),
    ]
    assert len(words) == _RECORDS
    for array in passed:
        words += [array.slot, array.flags, array.uneven, array.bytes, int(array.alone)]
    for memory in zeroed:
        words += [memory.ctypes.data, memory.nbytes]
    create: Any = ctypes.pythonapi.PyCFunction_NewEx
    create.restype, create.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.py_object, ctypes.c_void_p)
    known = np.array(words, np.int64)
    return Entries(*(
        create(ctypes.addressof(_definition(host, kind)), known, None) for kind in (_OF_ARRAYS, _OF_ADDRESSES)
    ))
