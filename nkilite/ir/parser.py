"""Text to Program: the inverse of nkilite.ir.printer. Lines that begin with // are comments."""

from __future__ import annotations

import ast
import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.errors import IrError
from nkilite.ir import attributes
from nkilite.ir.definition import REGISTRY, Role
from nkilite.ir.program import IMMEDIATE, Check, Program
from nkilite.ir.types import Buffer, BufferKind, Indirection, IndirectKind, MemoryRegion, ViewType
from nkilite.location import UNKNOWN, Location
from nkilite.machine.target import get_target

_BUFFER = re.compile(
    r"buffer %(?P<ref>\S+) = (?P<kind>\w+) (?P<region>\w+) (?P<dtype>\w+)(?P<shape>\[[^\]]*\])"
    r"(?: name (?P<name>'[^']*'))?(?: address (?P<address>\([^)]*\)))?(?: planned (?P<planned>\([^)]*\)))?"
    r"(?: in loop (?P<loop>\d+))?(?: data (?P<data>\S+))?$"
)
_INSTRUCTION = re.compile(r"(?P<engine>\w+) +(?P<op>\w+)\((?P<arguments>.*)\)(?: name (?P<name>'[^']*'))?"
                          r"(?: after (?P<after>\[[^\]]*\]))?$")
_OPERAND = re.compile(
    r"%(?P<ref>[^\s,()]+)(?: as (?P<dtype>\w+))?(?: \+ (?P<offset>-?\d+))?(?: (?P<pattern>\[\[.*?\]\]))?"
    r"(?: (?P<dynamic>scalar|vector)\((?P<index>.*)\) \* (?P<stride>-?\d+) < (?P<limit>\d+))?$"
)


def parse_program(text: str) -> Program:
    """Read a program back from its text.

    Raises:
        IrError: the text is malformed; the message names the line.
    """
    parser = ProgramParser()
    for number, line in numbered(text):
        with explained(number, line):
            parser.line(line)
    return parser.parsed()


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Every line that says something, with its number."""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("//"):
            yield number, line.strip()


@contextmanager
def explained(number: int, line: str) -> Iterator[None]:
    """Errors of what is done for a line, as one that names it."""
    try:
        yield
    except (IrError, KeyError, ValueError, SyntaxError, AttributeError) as error:
        raise IrError(f"line {number} of the program text: {error}\n  {line}", location=UNKNOWN) from None


class ProgramParser:
    """Reads a program line by line."""

    def __init__(self) -> None:
        self.program: Program | None = None
        self._files: dict[str, str] = {}
        self._buffers: dict[str, Buffer] = {}

    def parsed(self) -> Program:
        """The program, after its last line."""
        if self.program is None:
            raise IrError("the text has no 'program' line", location=UNKNOWN)
        return self.program

    def referenced(self, reference: str) -> int:
        """The id of the buffer that is written as %reference."""
        return self._buffers[reference.removeprefix("%")].id

    def line(self, line: str) -> None:
        body, location = self._split_location(line)
        if body.startswith("program "):
            name, _, target = body.removeprefix("program ").rpartition(" on ")
            self.program = Program(name, get_target(target))
            return
        if self.program is None:
            raise IrError("the first line must be 'program NAME on TARGET'", location=UNKNOWN)
        if body.startswith("file "):
            short, _, path = body.removeprefix("file ").partition(" = ")
            self._files[short] = path.strip('"')
        elif body.startswith("buffer "):
            self._buffer(body, location)
        elif body.startswith("output "):
            name = body.removeprefix("output %")
            if name.endswith(" fresh"):
                self.program.fresh |= {len(self.program.outputs)}
            self.program.outputs.append(self._buffers[name.removesuffix(" fresh")])
        elif not self._fact(body, location):
            self._instruction(body, location)

    def _fact(self, body: str, location: Location) -> bool:
        """A line about the program as a whole, if it is one."""
        program = self.program
        assert program is not None
        kind, _, said = body.partition(" ")
        if kind == "cores":
            program.cores = int(said)
        elif body == "managed":
            program.managed = True
        elif body == "placed":
            program.placed = True
        elif kind == "watch":
            program.fatal = said.endswith(" fatal")
            program.watch = ast.literal_eval(said.removesuffix(" fatal"))
        elif kind == "watched":
            program.watched = self.referenced(said)
        elif kind == "check":
            instruction, operand, tensor, shape = ast.literal_eval(said)
            program.checks.append(Check(instruction, operand, tensor, shape, location))
        else:
            return False
        return True

    def _split_location(self, line: str) -> tuple[str, Location]:
        body, mark, where = line.rpartition("  ; ")
        if not mark:
            return line, UNKNOWN
        short, _, number = where.rpartition(":")
        return body, Location(self._files[short], int(number))

    def _buffer(self, body: str, location: Location) -> None:
        assert self.program is not None
        match = _BUFFER.match(body)
        if match is None:
            raise IrError("malformed buffer", location=UNKNOWN)
        reference, kind = match["ref"], BufferKind(match["kind"])
        name = ast.literal_eval(match["name"]) if match["name"] else reference if reference.isidentifier() else ""
        data = None
        shape = tuple(ast.literal_eval(match["shape"]))
        dtype = as_dtype(match["dtype"])
        if match["data"]:
            raw = np.frombuffer(base64.b64decode(match["data"]), np.uint8).copy()
            data = raw.view(dtype.numpy).reshape(shape)
        region = MemoryRegion(match["region"])
        generated = Buffer.of(len(self.program.buffers), region, (1,), dtype).label
        buffer = self.program.add_buffer(
            region, shape, dtype, name="" if name == generated else name, kind=kind, location=location, data=data,
            address=ast.literal_eval(match["address"]) if match["address"] else None,
            loop=int(match["loop"]) if match["loop"] else None,
        )
        if match["planned"]:
            self.program.addresses[buffer.id] = ast.literal_eval(match["planned"])
        self._buffers[reference] = buffer

    def _instruction(self, body: str, location: Location) -> None:
        program = self.program
        assert program is not None
        match = _INSTRUCTION.match(body)
        if match is None:
            raise IrError("malformed instruction", location=UNKNOWN)
        if match["op"] not in REGISTRY:
            raise IrError(f"there is no instruction {match['op']!r}", location=UNKNOWN)
        definition = REGISTRY[match["op"]]
        given = dict(_split_argument(a) for a in _split_top(match["arguments"]))
        arguments: dict[str, object] = {}
        slots: list[int] = []
        parameters = {p.name: p for p in definition.parameters}
        for name in [*parameters, *(n for n in given if n not in parameters)]:
            text = given.get(name)
            if text is None:
                arguments[name] = parameters[name].default
            elif text.startswith("%"):
                arguments[name], words = self._operand(text)
                slots += words
            elif name in parameters and parameters[name].role is not Role.attribute and text != "None":
                arguments[name] = IMMEDIATE
                slots.append(program.constant_id(float(attributes.parse(text))))
            else:
                arguments[name] = attributes.parse(text)
        signature = program.signature(definition, arguments)
        index = program.append([signature.id, program.location_id(location), *slots])
        if match["name"]:
            program.names[index] = ast.literal_eval(match["name"])
        for producer in ast.literal_eval(match["after"]) if match["after"] else []:
            program.dependencies.append((index, producer))

    def _operand(self, text: str) -> tuple[ViewType, list[int]]:
        match = _OPERAND.match(text)
        if match is None:
            raise IrError(f"malformed operand {text!r}", location=UNKNOWN)
        buffer = self._buffers[match["ref"]]
        if match["pattern"] is None:
            return buffer.type, [buffer.id, 0]
        dtype = as_dtype(match["dtype"]) if match["dtype"] else buffer.dtype
        offset = int(match["offset"] or 0) * dtype.itemsize
        pattern = ast.literal_eval(match["pattern"])
        indirection: Indirection | None = None
        index_words: list[int] = []
        if match["dynamic"]:
            index, index_words = self._operand(match["index"])
            indirection = Indirection.of(
                IndirectKind(match["dynamic"]), index, int(match["stride"]), int(match["limit"])
            )
        shape, strides = tuple(n for _, n in pattern), tuple(s for s, _ in pattern)
        return ViewType.of(buffer.region, dtype, shape, strides, indirection), [buffer.id, offset, *index_words]


def _split_argument(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name.strip(), value.strip()


def _split_top(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    parts, depth, quote, start = [], 0, "", 0
    for i, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:i])
            start = i + 1
    if text[start:].strip():
        parts.append(text[start:])
    return parts
