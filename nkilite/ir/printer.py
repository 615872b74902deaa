"""Program to text: deterministic, readable, and complete enough for nkilite.ir.parser to read back.

    program add on trn2
    file add.py = "/home/me/add.py"
    buffer %a = input shared_hbm float32[128, 512]  ; add.py:8
    buffer %sb2 = internal sbuf float32[128, 512] planned (0, 0)  ; add.py:10
    output %out
    dma     dma_copy(dst=%sb2, src=%a)  ; add.py:11
    vector  tensor_tensor(dst=%sb4 [[512, 128], [1, 512]], data1=%sb2, data2=%sb3, op=alu.add)  ; add.py:14

The body of a loop is indented, and buffers made in it say which loop that is ("in loop 0", counting beginnings):

    buffer %sb5 = internal sbuf float32[128, 512] in loop 0  ; add.py:20
    sync    for_begin(index=%reg3, counter=%reg4, lower=0.0, upper=%reg2, step=1.0)  ; add.py:24
      dma     dma_copy(dst=%sb5, src=%a [[512, 128], [1, 512]] scalar(%reg3) * 512 < 897)  ; add.py:21
    sync    for_end(index=%reg3, counter=%reg4, step=1.0)  ; add.py:24

Lines after the first say on how many cores programs of the launch run, what the vendor's compiler would do (`FACTS`),
where loops of Beta 1 begin their iterations and end (`affine`), and what numbers are looked for; once a pass has put
checks in, `watched` and `check` say where they leave what they find, and whose it is. Which calls left the engine to
the compiler, which only the timing model asks, and the functions that lines are in, which messages name, are not in
the text.

An operand is a buffer, then, unless the view is the whole buffer, its dtype where it differs, its offset in elements
and its access pattern as [[stride, count], ...].
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections import Counter
from collections.abc import Iterator

from nkilite.ir import attributes
from nkilite.ir.definition import Control
from nkilite.ir.program import IMMEDIATE, Instruction, Operand, Program, Signature
from nkilite.ir.types import Buffer, BufferKind, ViewType
from nkilite.location import Location


def print_program(program: Program) -> str:
    """The whole program as text."""
    return Printer(program).text()


class Printer:
    """Writes a program; a subclass writes more between the lines."""

    def __init__(self, program: Program) -> None:
        self._program = program
        names = Counter(b.name for b in program.buffers)
        others = {_generated(b) for b in program.buffers if b.name != _generated(b)}
        self._unique = {n for n, times in names.items() if times == 1 and n.isidentifier()} - others
        self._short: dict[str, str] = {}
        self.files: dict[str, str] = {}
        for location in [b.location for b in program.buffers] + program.locations:
            self._shorten(location)
        self._engines: dict[int, str] = {}

    def text(self) -> str:
        return "\n".join(self._lines()) + "\n"

    def about(self) -> Iterator[str]:
        """More lines in front of the instructions."""
        return iter(())

    def before(self, index: int) -> Iterator[str]:
        """More lines in front of an instruction."""
        return iter(())

    def _lines(self) -> Iterator[str]:
        program = self._program
        plain = program.name.isprintable() and program.name == program.name.strip(" '\"")
        yield f"program {program.name if plain else repr(program.name)} on {program.target.name}"
        if program.cores > 1:
            yield f"cores {program.cores}"
        yield from (fact for fact in FACTS if getattr(program, fact))
        yield from (f"affine {bounds}" for bounds in program.affine)
        if program.watch:
            yield f"watch {program.watch!r}{' fatal' if program.fatal else ''}"
        for short, file in self.files.items():
            yield f"file {short} = {json.dumps(file, ensure_ascii=False)}"
        for buffer in program.buffers:
            yield self.buffer(buffer)
        for place, output in enumerate(program.outputs):
            yield f"output {self.reference(output)}{' fresh' if place in program.fresh else ''}"
        if program.watched >= 0:
            yield f"watched {self.reference(program.buffers[program.watched])}"
        for found in program.checks:
            what = found.instruction, found.operand, found.tensor, found.shape
            yield f"check {what}{self.location(found.location)}"
        after: dict[int, list[int]] = {}
        for consumer, producer in program.dependencies:
            after.setdefault(consumer, []).append(producer)
        yield from self.about()
        depth = 0
        for instruction in program:
            control = instruction.signature.definition.control
            depth -= control is Control.end
            for line in self.before(instruction.index):
                yield "  " * depth + line
            yield "  " * depth + self.instruction(instruction, after.get(instruction.index, []))
            depth += control is Control.begin

    def _shorten(self, location: Location) -> None:
        if location.line and location.file not in self._short:
            short = re.sub(r"\s", "_", os.path.basename(location.file)) or "source"
            while short in self.files:
                short += "'"
            self.files[short] = location.file
            self._short[location.file] = short

    def location(self, location: Location) -> str:
        return f"  ; {self._short[location.file]}:{location.line}" if location.line else ""

    def reference(self, buffer: Buffer) -> str:
        if buffer.name in self._unique:
            return f"%{buffer.name}"
        if buffer.name.isidentifier():
            return f"%{buffer.name}.{buffer.id}"
        return f"%{_generated(buffer)}"

    def buffer(self, buffer: Buffer) -> str:
        what = f"{buffer.kind.value} {buffer.region} {buffer.dtype}{list(buffer.shape)}"
        text = f"buffer {self.reference(buffer)} = {what}"
        if buffer.name and (buffer.name not in self._unique or buffer.name == _generated(buffer)):
            text += f" name {buffer.name!r}"
        if buffer.address is not None:
            text += f" address {buffer.address}"
        if buffer.id in self._program.addresses:
            text += f" planned {self._program.addresses[buffer.id]}"
        if buffer.loop is not None:
            text += f" in loop {buffer.loop}"
        if buffer.dims:
            text += f" dynamic {list(map(list, buffer.dims))}"
        if buffer.kind is BufferKind.constant and buffer.data is not None:
            text += f" data {base64.b64encode(buffer.data.tobytes()).decode()}"
        return text + self.location(buffer.location)

    def instruction(self, instruction: Instruction, after: list[int]) -> str:
        signature = instruction.signature
        defaults = {p.name: p.default for p in signature.definition.parameters}
        arguments = []
        for name, value in signature.arguments.items():
            if isinstance(value, ViewType):
                arguments.append(f"{name}={self._operand(instruction, signature.operand(name))}")
            elif value is IMMEDIATE:
                immediate = next(i for i in signature.immediates if i.name == name)
                arguments.append(f"{name}={attributes.text(instruction.value(immediate))}")
            elif value is not defaults.get(name) and value != defaults.get(name, _ABSENT):
                arguments.append(f"{name}={attributes.text(value)}")
        text = f"{self._engine(signature):<7} {signature.name}({', '.join(arguments)})"
        if instruction.name:
            text += f" name {instruction.name!r}"
        if after:
            text += f" after {after}"
        return text + self.location(instruction.location)

    def _operand(self, instruction: Instruction, operand: Operand) -> str:
        buffer, byte_offset = instruction.access(operand)
        kind = operand.type
        text = self.reference(buffer)
        if kind is buffer.type and byte_offset == 0:
            return text
        if kind.dtype != buffer.dtype or kind.dtype is not buffer.dtype:
            text += f" as {kind.dtype}"
        offset = byte_offset // kind.dtype.itemsize
        if offset:
            text += f" + {offset}"
        text += f" {[[s, n] for s, n in zip(kind.strides, kind.shape, strict=True)]}"
        if kind.indirection is not None:
            index = self._operand(instruction, instruction.signature.operand(f"{operand.name}.index"))
            dynamic = kind.indirection
            text += f" {dynamic.kind.value}({index}) * {dynamic.stride} < {dynamic.limit}"
        return text

    def _engine(self, signature: Signature) -> str:
        found = self._engines.get(signature.id)
        if found is None:
            found = self._engines[signature.id] = signature.definition.rule("cost")(signature).engine.name
        return found


FACTS = ("managed", "placed", "renames", "disable_dge")
_ABSENT = object()


def _generated(buffer: Buffer) -> str:
    return Buffer.of(buffer.id, buffer.region, (1,), buffer.dtype).label
