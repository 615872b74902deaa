"""The native code of XLA's custom calls: one handler, whose attributes say which program a call runs.

It follows XLA's typed foreign function interface (xla/ffi/api/c_api.h, in jaxlib's `include`). A call whose program is
ready, in a place that nobody has taken, needs no Python: the handler puts the addresses of buffers among the bases of
the place and walks the table. Everything else is handed on to `slow(frame, place, stopped)`.

XLA sets the floating-point mode of its threads; a kernel runs in the default one, as everywhere else.
"""

from __future__ import annotations

import os
import platform

from nkilite.codegen.kernel import STATUS_TOLD
from nkilite.native.entry import ZERO_RANGES
from nkilite.native.library import Source

MAJOR = 0  # of the interface
_EXECUTE, _METADATA, _SCALARS = 3, 1, 2
_CANCELLED = 1

# Bytes in XLA's structures.
_FRAME_EXTENSION, FRAME_API, _FRAME_STAGE = 8, 16, 32
ARGUMENT_COUNT, ARGUMENTS, RESULT_COUNT, RESULTS, _ATTRIBUTE_COUNT, ATTRIBUTES = 56, 72, 96, 112, 136, 160
_EXTENSION_TYPE, _EXTENSION_METADATA, _METADATA_MAJOR, _METADATA_MINOR = 8, 24, 24, 28
BUFFER_DATA, SCALAR_VALUE, API_ERROR_CREATE = 24, 8, 48

# What the handler knows, as int64 words: who made its calls, the addresses of records, how many, the slow way, version.
PROCESS, RECORDS, COUNT, SLOW, VERSION, KNOWN = range(6)
# Words of a record; addresses of places and the slots of buffers follow.
_WALK, _TABLE, _WORDS, _GIVEN, _MADE, PLACES = range(6)
MOST_PLACES = min(os.cpu_count() or 1, 64)
# Words of a place: whether it is taken, its bases; ranges that are zero when a kernel begins follow.
_TAKEN, _BASES, _ZEROED, _RANGES = range(4)

_KNOWN_WORDS = f"@nkilite_xla_known = internal global [{KNOWN} x i64] zeroinitializer"
_TOLD = b"the kernel was told to end\0"
_TOLD_TEXT = f"@nkilite_xla_told = private constant [{len(_TOLD)} x i8] c\"{_TOLD[:-1].decode()}\\00\""


def _load(name: str, base: str, offset: int, kind: str = "i64") -> str:
    return (
        f"  %{name}_at = getelementptr i8, ptr {base}, i64 {offset}\n"
        f"  %{name} = load {kind}, ptr %{name}_at, align {4 if kind == 'i32' else 8}\n"
    )


def _known(name: str, word: int, kind: str = "i64") -> str:
    place = f"getelementptr (i64, ptr @nkilite_xla_known, i64 {word})"
    return f"  %{name} = load atomic {kind}, ptr {place} acquire, align 8\n"


def _item(name: str, base: str, index: str, kind: str = "ptr") -> str:
    return (
        f"  %{name}_item = getelementptr i64, ptr {base}, i64 {index}\n"
        f"  %{name} = load {kind}, ptr %{name}_item, align 8\n"
    )


def _buffers(name: str, count: int, array: int, first: str, before: str, after: str) -> str:
    """Store the addresses of XLA's buffers among the bases, slots of which begin at word `first` of the record."""
    return f"""
{name}:
{_load(f"{name}_array", "%frame", array, "ptr")}{_load(f"{name}_count", "%frame", count)}
  br label %{name}_head
{name}_head:
  %{name}_i = phi i64 [ 0, %{name} ], [ %{name}_next, %{name}_body ]
  %{name}_more = icmp ult i64 %{name}_i, %{name}_count
  br i1 %{name}_more, label %{name}_body, label %{after}
{name}_body:
{_item(f"{name}_buffer", f"%{name}_array", f"%{name}_i")}{_load(f"{name}_data", f"%{name}_buffer", BUFFER_DATA)}
  %{name}_slot_index = add i64 %{name}_i, {first}
{_item(f"{name}_slot", "%record", f"%{name}_slot_index", "i64")}
  %{name}_base = getelementptr i64, ptr %bases, i64 %{name}_slot
  store i64 %{name}_data, ptr %{name}_base, align 8
  %{name}_next = add i64 %{name}_i, 1
  br label %{name}_head"""


_SLOTS = PLACES + MOST_PLACES

_CALL = f"""
define ptr @nkilite_xla_call(ptr %frame) {{
entry:
{_load("extension", "%frame", _FRAME_EXTENSION, "ptr")}
  %extended = icmp ne ptr %extension, null
  br i1 %extended, label %asked, label %staged
asked:
{_load("kind", "%extension", _EXTENSION_TYPE, "i32")}
  %metadata = icmp eq i32 %kind, {_METADATA}
  br i1 %metadata, label %tell, label %staged
tell:
{_load("about", "%extension", _EXTENSION_METADATA, "ptr")}{_known("minor", VERSION)}
  %major_at = getelementptr i8, ptr %about, i64 {_METADATA_MAJOR}
  store i32 {MAJOR}, ptr %major_at, align 4
  %minor_at = getelementptr i8, ptr %about, i64 {_METADATA_MINOR}
  %minor_short = trunc i64 %minor to i32
  store i32 %minor_short, ptr %minor_at, align 4
  ret ptr null
staged:
{_load("stage", "%frame", _FRAME_STAGE, "i32")}
  %executes = icmp eq i32 %stage, {_EXECUTE}
  br i1 %executes, label %execute, label %nothing
nothing:
  ret ptr null
execute:
{_load("attribute_count", "%frame", _ATTRIBUTE_COUNT)}
  %ours = icmp eq i64 %attribute_count, {_SCALARS}
  br i1 %ours, label %whose, label %slowly
whose:
{_load("attributes", "%frame", ATTRIBUTES, "ptr")}\
{_item("first", "%attributes", "0")}{_item("second", "%attributes", "1")}\
{_load("number_place", "%first", SCALAR_VALUE, "ptr")}{_load("process_place", "%second", SCALAR_VALUE, "ptr")}
  %number = load i64, ptr %number_place, align 8
  %process = load i64, ptr %process_place, align 8
{_known("own", PROCESS)}{_known("count", COUNT)}{_known("records", RECORDS, "ptr")}
  %same = icmp eq i64 %process, %own
  %numbered = icmp ult i64 %number, %count
  %valid = and i1 %same, %numbered
  br i1 %valid, label %look, label %slowly
look:
  %record_item = getelementptr i64, ptr %records, i64 %number
  %record = load atomic ptr, ptr %record_item acquire, align 8
  %ready = icmp ne ptr %record, null
  br i1 %ready, label %counts, label %slowly
counts:
{_item("given", "%record", str(_GIVEN), "i64")}{_item("made", "%record", str(_MADE), "i64")}\
{_load("given_now", "%frame", ARGUMENT_COUNT)}{_load("made_now", "%frame", RESULT_COUNT)}
  %given_fit = icmp eq i64 %given, %given_now
  %made_fit = icmp eq i64 %made, %made_now
  %fit = and i1 %given_fit, %made_fit
  br i1 %fit, label %search, label %slowly
search:
  %p = phi i64 [ 0, %counts ], [ %p_next, %take ]
  %p_valid = icmp ult i64 %p, {MOST_PLACES}
  br i1 %p_valid, label %candidate, label %slowly
candidate:
  %p_index = add i64 %p, {PLACES}
  %place_item = getelementptr i64, ptr %record, i64 %p_index
  %place = load atomic ptr, ptr %place_item acquire, align 8
  %exists = icmp ne ptr %place, null
  br i1 %exists, label %take, label %slowly
take:
  %swap = cmpxchg ptr %place, i64 0, i64 1 acquire monotonic
  %taken = extractvalue {{ i64, i1 }} %swap, 1
  %p_next = add i64 %p, 1
  br i1 %taken, label %set, label %search
set:
{_item("bases", "%place", str(_BASES))}{_item("zeroed", "%place", str(_ZEROED), "i64")}
  br label %inputs
{_buffers("inputs", ARGUMENT_COUNT, ARGUMENTS, str(_SLOTS), "set", "outputs_first")}
outputs_first:
  %slots_behind = add i64 %given, {_SLOTS}
  br label %outputs
{_buffers("outputs", RESULT_COUNT, RESULTS, "%slots_behind", "outputs_first", "zeroing")}
zeroing:
  %ranges = getelementptr i64, ptr %place, i64 {_RANGES}
{ZERO_RANGES}run:
{_item("walk", "%record", str(_WALK))}{_item("table", "%record", str(_TABLE))}\
{_item("words", "%record", str(_WORDS), "i64")}
  %stopped = call i64 %walk(ptr %table, i64 0, i64 %words, ptr %bases)
  %done = icmp eq i64 %stopped, 0
  br i1 %done, label %leave, label %why
why:
  %status = lshr i64 %stopped, 48
  %told = icmp eq i64 %status, {STATUS_TOLD}
  br i1 %told, label %cancelled, label %handled
handled:
{_known("finish", SLOW, "ptr")}
  %problem = call ptr %finish(ptr %frame, i64 %p, i64 %stopped)
  br label %leave
cancelled:
{_load("api", "%frame", FRAME_API, "ptr")}{_load("create", "%api", API_ERROR_CREATE, "ptr")}
  %about_error = alloca [4 x i64], align 8
  store i64 28, ptr %about_error, align 8
  %extension_field = getelementptr i8, ptr %about_error, i64 8
  store ptr null, ptr %extension_field, align 8
  %message_field = getelementptr i8, ptr %about_error, i64 16
  store ptr @nkilite_xla_told, ptr %message_field, align 8
  %code_field = getelementptr i8, ptr %about_error, i64 24
  store i32 {_CANCELLED}, ptr %code_field, align 4
  %cancellation = call ptr %create(ptr %about_error)
  br label %leave
leave:
  %result = phi ptr [ null, %run ], [ %problem, %handled ], [ %cancellation, %cancelled ]
  store atomic i64 0, ptr %place release, align 8
  ret ptr %result
slowly:
{_known("slow", SLOW, "ptr")}
  %slow_result = call ptr %slow(ptr %frame, i64 -1, i64 0)
  ret ptr %slow_result
}}
"""

_DEFAULT_MODE = 0x1F80  # of x86: every exception masked, denormal numbers kept, to the nearest
if platform.machine().lower() in ("x86_64", "amd64"):
    _SAVE = f"""
  %kept = alloca i32, align 4
  %default = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %kept)
  store i32 {_DEFAULT_MODE}, ptr %default, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %default)"""
    _RESTORE = "  call void @llvm.x86.sse.ldmxcsr(ptr %kept)"
    _MODE_DECLARATIONS: tuple[str, ...] = (
        "declare void @llvm.x86.sse.stmxcsr(ptr)", "declare void @llvm.x86.sse.ldmxcsr(ptr)",
    )
elif platform.machine().lower() in ("aarch64", "arm64"):
    _SAVE = """
  %kept = call i64 asm sideeffect "mrs $0, fpcr", "=r"()
  call void asm sideeffect "msr fpcr, $0", "r"(i64 0)"""
    _RESTORE = '  call void asm sideeffect "msr fpcr, $0", "r"(i64 %kept)'
    _MODE_DECLARATIONS = ()
else:
    _SAVE = _RESTORE = ""
    _MODE_DECLARATIONS = ()

_HANDLER = f"""
define ptr @nkilite_xla(ptr %frame) {{{_SAVE}
  %result = call ptr @nkilite_xla_call(ptr %frame)
{_RESTORE}
  ret ptr %result
}}
"""
_KNOW = """
define ptr @nkilite_xla_know() {
  ret ptr @nkilite_xla_known
}
"""
SOURCES = (
    Source("nkilite_xla", _HANDLER, _MODE_DECLARATIONS),
    Source("nkilite_xla_call", _CALL, (
        "declare void @llvm.memset.p0.i64(ptr, i8, i64, i1)", _KNOWN_WORDS, _TOLD_TEXT,
    )),
    Source("nkilite_xla_know", _KNOW, ()),
)
