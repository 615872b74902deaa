"""Whether a local variable of a kernel is read again, by the bytecode of its function.

`part = nisa.nc_matmul(a, b)`, then `total += part`: the vendor's compiler adds such a product in PSUM if nothing else
reads it. Here the addition is recorded when Python runs it, so it is the code that has to say what follows.
"""

from __future__ import annotations

import dis
from types import CodeType, FrameType

_known: dict[tuple[int, int], tuple[CodeType, bool]] = {}
_SEE_ALL = frozenset({"dir", "eval", "exec", "locals", "vars"})  # read locals that the code does not name
_SETS = frozenset({"DELETE_FAST", "STORE_FAST", "STORE_FAST_STORE_FAST"})
_ENDS = ("RETURN", "RAISE", "RERAISE", "JUMP_FORWARD", "JUMP_BACKWARD", "JUMP_ABSOLUTE")  # nothing falls through them


def is_last_use(frame: FrameType) -> bool:
    """Whether the operation a frame is at, whose right operand is a local variable, is the last one to read it."""
    site = id(frame.f_code), frame.f_lasti
    found = _known.get(site)
    if found is None:
        found = _known[site] = frame.f_code, _is_last_use(frame.f_code, frame.f_lasti)
    return found[1]


def _is_last_use(code: CodeType, at: int) -> bool:
    instructions = list(dis.get_instructions(code))
    position = next((i for i, instruction in enumerate(instructions) if instruction.offset == at), 0)
    before = instructions[position - 1]
    if position == 0 or not before.opname.startswith("LOAD_FAST") or not _SEE_ALL.isdisjoint(code.co_names):
        return False
    name = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
    handlers = [instruction.argval for instruction in instructions if instruction.opname.startswith("SETUP_")]
    handlers += [entry.target for entry in getattr(dis.Bytecode(code), "exception_entries", ())]
    places = {instruction.offset: i for i, instruction in enumerate(instructions)}
    return not _is_read(instructions, places, [position + 1, *(places[h] for h in handlers)], name)


def _is_read(instructions: list[dis.Instruction], places: dict[int, int], starts: list[int], name: str) -> bool:
    """Whether some way from one of these instructions reads a variable before it is set anew."""
    seen: set[int] = set()
    while starts:
        position = starts.pop()
        if position in seen or position >= len(instructions):
            continue
        seen.add(position)
        instruction = instructions[position]
        value = instruction.argval
        if "_FAST" in instruction.opname and name in (value if isinstance(value, tuple) else (value,)):
            if instruction.opname in _SETS or (instruction.opname == "STORE_FAST_LOAD_FAST" and value[0] == name):
                continue
            return True
        if instruction.opcode in dis.hasjrel or instruction.opcode in dis.hasjabs:
            starts.append(places[value])
        if not instruction.opname.startswith(_ENDS):
            starts.append(position + 1)
    return False
