"""Signals while native code runs: Python handles them in the main thread, so its launches ask it now and then.

A run has a *watch*: a few words that native code is led to by one in front of its bases (nkilite/codegen/watch.py).
Some thirty times a second the main thread takes the interpreter's lock and lets Python handle the signals that have
come, as it does between two lines of Python. If a handler raises, as Ctrl-C does, the watch tells everything that takes
part in the run to end, and the exception comes out of the launch. Other threads go on: signals are none of theirs.
"""

from __future__ import annotations

import ctypes
import functools
import platform
import threading

import numpy as np

from nkilite import forking
from nkilite.codegen.kernel import STATUS_TOLD
from nkilite.codegen.watch import DUE, LOOK, STOP
from nkilite.host.cpu import Host
from nkilite.native.library import Source, library

_MAIN, _IDENTITY, _ENSURE, _CHECK, _RELEASE = range(24, 64, 8)  # bytes in a watch, behind those codegen knows
WATCH_WORDS = 8

if platform.machine().lower() in ("aarch64", "arm64"):
    _NOW = 'call i64 asm sideeffect "mrs $0, cntvct_el0", "=r"()'
    _SECOND = 'call i64 asm sideeffect "mrs $0, cntfrq_el0", "=r"()'
    _DECLARATIONS: tuple[str, ...] = ()
else:
    _NOW = "call i64 @llvm.readcyclecounter()"
    _SECOND = f"or i64 0, {1 << 31}"  # cycles: near enough
    _DECLARATIONS = ("declare i64 @llvm.readcyclecounter()",)
_PER_SECOND = 5  # log2: between 16 and 64 times on clocks of 1 to 4 GHz


def _get(name: str, offset: int, kind: str) -> str:
    return (
        f"  %{name}_at = getelementptr i8, ptr %watch, i64 {offset}\n"
        f"  %{name} = load {kind}, ptr %{name}_at, align 8"
    )


# Returns 0, or STATUS_TOLD if the run is to end. Any thread may ask; `due` is zero when a run begins.
_TEXT = f"""
define i32 @nkilite_look(ptr %watch) {{
entry:
  %stop_at = getelementptr i8, ptr %watch, i64 {STOP}
  %due_at = getelementptr i8, ptr %watch, i64 {DUE}
  %stop = load atomic i64, ptr %stop_at monotonic, align 8
  %stopped = icmp ne i64 %stop, 0
  br i1 %stopped, label %end, label %time
time:
  %due = load atomic i64, ptr %due_at monotonic, align 8
  %now = {_NOW}
  %over = icmp uge i64 %now, %due
  br i1 %over, label %who, label %go
who:
{_get("main_place", _MAIN, "ptr")}
  %main = load i64, ptr %main_place, align 8
{_get("identity", _IDENTITY, "ptr")}
  %own = call i64 %identity()
  %is_main = icmp eq i64 %own, %main
  br i1 %is_main, label %ours, label %go
ours:
  %second = {_SECOND}
  %period = lshr i64 %second, {_PER_SECOND}
  %next = add i64 %now, %period
  store atomic i64 %next, ptr %due_at monotonic, align 8
  %first = icmp eq i64 %due, 0
  br i1 %first, label %go, label %ask
ask:
{_get("ensure", _ENSURE, "ptr")}
{_get("check", _CHECK, "ptr")}
{_get("release", _RELEASE, "ptr")}
  %state = call i32 %ensure()
  %code = call i32 %check()
  call void %release(i32 %state)
  %raised = icmp ne i32 %code, 0
  br i1 %raised, label %tell, label %go
tell:
  store atomic i64 1, ptr %stop_at monotonic, align 8
  br label %end
end:
  ret i32 {STATUS_TOLD}
go:
  ret i32 0
}}
"""
_SOURCE = Source("nkilite_look", _TEXT, _DECLARATIONS)

# Calls a function with the interpreter's lock let go of. ctypes can do so itself, but then it does not expect that an
# exception is set afterwards.
_APART = Source("nkilite_apart", """
define i64 @nkilite_apart(ptr %save, ptr %restore, ptr %function, i64 %a, i64 %b, i64 %c, i64 %d) {
  %state = call ptr %save()
  %result = call i64 %function(i64 %a, i64 %b, i64 %c, i64 %d)
  call void %restore(ptr %state)
  ret i64 %result
}
""", ())

_main_thread = np.zeros(1, np.int64)


def _know_main_thread() -> None:
    _main_thread[0] = threading.main_thread().ident or 0


_know_main_thread()
forking.in_child(_know_main_thread)


def new_watch(host: Host) -> np.ndarray:
    """The words of a watch; the first two are to be zero when a run begins."""
    words = np.zeros(WATCH_WORDS, np.int64)
    python = {_IDENTITY: "PyThread_get_thread_ident", _ENSURE: "PyGILState_Ensure", _CHECK: "PyErr_CheckSignals",
              _RELEASE: "PyGILState_Release"}
    for place, name in python.items():
        words[place // 8] = python_function(name)
    words[LOOK // 8] = library(host).addresses([_SOURCE])[_SOURCE.name]
    words[_MAIN // 8] = _main_thread.ctypes.data
    return words


class Apart:
    """A native function, by address, that is called with the interpreter's lock let go of and up to four integers.

    An exception that a signal handler raised meanwhile is raised.
    """

    def __init__(self, host: Host, address: int) -> None:
        call = library(host).addresses([_APART])[_APART.name]
        prototype = ctypes.PYFUNCTYPE(ctypes.c_int64, *(ctypes.c_void_p,) * 3, *(ctypes.c_int64,) * 4)
        self.address = address
        self._call = functools.partial(
            prototype(call), python_function("PyEval_SaveThread"), python_function("PyEval_RestoreThread"), address
        )

    def __call__(self, one: int, two: int = 0, three: int = 0, four: int = 0) -> int:
        result: int = self._call(one, two, three, four)
        return result


def python_function(name: str) -> int:
    """The address of a function of Python's C interface."""
    return ctypes.cast(getattr(ctypes.pythonapi, name), ctypes.c_void_p).value or 0
