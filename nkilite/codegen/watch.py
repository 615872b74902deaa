"""Where native code looks whether it is to end, because Python has a signal to handle: the look, and who needs it.

The word WATCH in front of the bases of a run is the address of its watch (nkilite/native/interrupts.py), which knows
the function to ask. The walk of a table asks between entries; a micro-kernel that may take long asks in its outermost
loop, too.
"""

from __future__ import annotations

from nkilite.codegen.emitter import Emitter, Value

WATCH = -24  # bytes from the bases
DUE, STOP, LOOK = 0, 8, 16  # bytes in a watch: when to ask Python, whether to end, the function

_LONG = 1 << 22  # elements: some milliseconds


def look(bases: str, name: str) -> str:
    """LLVM text that sets `%name` to 0, or to the status to end with."""
    return f"""\
  %{name}_at = getelementptr i8, ptr {bases}, i64 {WATCH}
  %{name}_watch = load ptr, ptr %{name}_at, align 8
  %{name}_field = getelementptr i8, ptr %{name}_watch, i64 {LOOK}
  %{name}_function = load ptr, ptr %{name}_field, align 8
  %{name} = call i32 %{name}_function(ptr %{name}_watch)"""


def end_if_told(e: Emitter, elements: int) -> None:
    """In the outermost loop of a micro-kernel that goes through so many elements: end it if the watch says so."""
    if elements < _LONG:
        return
    bases = Value("%bases", "ptr")
    watch = e.load("ptr", e.offset(bases, WATCH), align=8)
    function = e.load("ptr", e.offset(watch, LOOK), align=8)
    code = e.call_at(function, "i32", watch)
    told, go_on = e.label("told"), e.label("untold")
    e.line(f"br {e.compare('ne', code, 0)}, label %{told}, label %{go_on}")
    e.start_block(told)
    e.ret(code)
    e.start_block(go_on)
