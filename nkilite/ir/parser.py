"""Text to Program: the inverse of nkilite.ir.printer. Lines that begin with // are comments."""

from __future__ import annotations

import ast
import base64
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from inspect import Parameter
from typing import Any

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.errors import IrError, NkiError
from nkilite.ir import attributes
from nkilite.ir.definition import REGISTRY, Role
from nkilite.ir.printer import FACTS
from nkilite.ir.program import IMMEDIATE, Check, Program
from nkilite.ir.types import Buffer, BufferKind, Indirection, IndirectKind, MemoryRegion, ViewType
from nkilite.location import UNKNOWN, Location
from nkilite.machine.target import get_target

_STRING = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_PAIR = r"\(-?\d+, -?\d+\)"
_PAIRS = r"\[\[-?\d+, -?\d+\](?:, \[-?\d+, -?\d+\])*\]"
_NUMBERS = r"\[(?:\d+(?:, \d+)*)?\]"
_BUFFER = re.compile(
    rf"buffer %(?P<ref>\S+) = (?P<kind>\w+) (?P<region>\w+) (?P<dtype>\w+)(?P<shape>{_NUMBERS})"
    rf"(?: name (?P<name>{_STRING}))?(?: address (?P<address>{_PAIR}))?(?: planned (?P<planned>{_PAIR}))?"
    rf"(?: in loop (?P<loop>\d+))?(?: dynamic (?P<dims>{_PAIRS}))?(?: data (?P<data>\S+))?$"
)
_INSTRUCTION = re.compile(
    rf"(?P<engine>\w+) +(?P<op>\w+)\((?P<arguments>.*)\)(?: name (?P<name>{_STRING}))?"
    rf"(?: after (?P<after>{_NUMBERS}))?$"
)
_OPERAND = re.compile(
    rf"%(?P<ref>[^\s,()]+)(?: as (?P<dtype>\w+))?(?: \+ (?P<offset>-?\d+))?(?: (?P<pattern>{_PAIRS}))?"
    r"(?: (?P<dynamic>scalar|vector)\((?P<index>.*)\) \* (?P<stride>-?\d+) < (?P<limit>\d+))?$"
)
_TOKEN = re.compile(rf"{_STRING}|[,()\[\]{{}}]")
_LOCATION = re.compile(r"(?P<body>.*)  ; (?P<file>\S+):(?P<line>\d+)$")


class Misread(ValueError):
    """A part of a line is not what it should be: `explained` says in which line."""

    def __init__(self, what: str, part: str = "") -> None:
        super().__init__(what)
        self.part = part


def parse_program(text: str) -> Program:
    """Read a program back from its text.

    Raises:
        IrError: the text is malformed; the message names the line.
    """
    parser = ProgramParser()
    for number, line in numbered(text):
        with explained(number, line):
            parser.line(line.strip())
    return parser.parsed()


def numbered(text: str) -> Iterator[tuple[int, str]]:
    """Every line that says something, with its number."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip() and not line.lstrip().startswith("//"):
            yield number, line.rstrip()


@contextmanager
def explained(number: int, line: str) -> Iterator[None]:
    """Errors of what is done for a line, as one that names it, and where in it the error is."""
    try:
        yield
    except _ERRORS as error:
        part = error.part if isinstance(error, Misread) else str(error.args[0]) if isinstance(error, KeyError) else ""
        column = max(line.rfind(part) if part else 0, len(line) - len(line.lstrip())) + 1
        said = f"unknown name {part!r}" if isinstance(error, KeyError) else str(error)
        where = f"line {number} of the program text, column {column}"
        raise IrError(f"{where}: {said}\n  {line}\n  {'^':>{column}}", location=UNKNOWN) from None


_ERRORS = (IrError, AttributeError, LookupError, OverflowError, RecursionError, SyntaxError, TypeError, ValueError)


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
            if self.program is not None:
                raise Misread("a second program", body)
            self.program = Program(ast.literal_eval(name) if name.startswith(("'", '"')) else name, get_target(target))
            return
        if self.program is None:
            raise IrError("the first line must be 'program NAME on TARGET'", location=UNKNOWN)
        if body.startswith("file "):
            short, _, path = body.removeprefix("file ").partition(" = ")
            self._files[short] = json.loads(path)
        elif body.startswith("buffer "):
            self._buffer(body, location)
        elif body.startswith("output "):
            name = body.removeprefix("output ")
            if name.endswith(" fresh"):
                self.program.fresh |= {len(self.program.outputs)}
            self.program.outputs.append(self.program.buffers[self.referenced(name.removesuffix(" fresh"))])
        elif not self._fact(body, location):
            self._instruction(body, location)

    def _fact(self, body: str, location: Location) -> bool:
        """A line about the program as a whole, if it is one."""
        program = self.program
        assert program is not None
        kind, _, said = body.partition(" ")
        if kind == "cores":
            program.cores = int(said)
        elif body in FACTS:
            setattr(program, body, True)
        elif kind == "affine":
            program.affine.append(_numbers(said))
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
        match = _LOCATION.match(line)
        if match is None:
            return line, UNKNOWN
        return match["body"], Location(self._files[match["file"]], int(match["line"]))

    def _buffer(self, body: str, location: Location) -> None:
        assert self.program is not None
        match = _BUFFER.match(body)
        if match is None:
            raise IrError("malformed buffer", location=UNKNOWN)
        reference, region, dtype = match["ref"], MemoryRegion(match["region"]), as_dtype(match["dtype"])
        if reference in self._buffers:
            raise Misread("a second buffer of this name", f"%{reference}")
        generated = Buffer.of(len(self.program.buffers), region, (1,), dtype).label
        name = "" if reference == generated else reference
        shape, data = tuple(_numbers(match["shape"])), None
        if match["data"]:
            raw = np.frombuffer(base64.b64decode(match["data"]), np.uint8).copy()
            data = raw.view(dtype.numpy).reshape(shape)
        buffer = self.program.add_buffer(
            region, shape, dtype, name=ast.literal_eval(match["name"]) if match["name"] else name,
            kind=BufferKind(match["kind"]), location=location, data=data,
            address=ast.literal_eval(match["address"]) if match["address"] else None,
            loop=int(match["loop"]) if match["loop"] else None,
            dims=tuple((position, place) for position, place in ast.literal_eval(match["dims"] or "()")),
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
            raise Misread(f"there is no instruction {match['op']!r}", match["op"])
        definition = REGISTRY[match["op"]]
        given = _arguments(match["op"], match["arguments"])
        arguments: dict[str, object] = {}
        slots: list[int] = []
        parameters = {p.name: p for p in definition.parameters}
        for name in [*parameters, *(n for n in given if n not in parameters)]:
            text = given.get(name)
            if text is None:
                arguments[name] = parameters[name].default
                if arguments[name] is Parameter.empty:
                    raise IrError(f"{match['op']} needs {name}", location=UNKNOWN)
            elif name not in parameters and name != "registers":
                raise Misread(f"{match['op']} has no argument {name}", f"{name}=")
            elif text.startswith("%"):
                arguments[name], words = self._operand(text)
                slots += words
            elif name in parameters and parameters[name].role is not Role.attribute and text != "None":
                arguments[name] = IMMEDIATE
                slots.append(program.constant_id(float(_attribute(text))))
            else:
                arguments[name] = _attribute(text)
        known = len(program.signatures)
        signature = program.signature(definition, arguments)
        if signature.id == known:  # it is new: what is wrong with it says the verifier, if rules can read it
            with suppress(NkiError):
                definition.rule("check")(signature)
        index = program.append([signature.id, program.location_id(location), *slots])
        if match["name"]:
            program.names[index] = ast.literal_eval(match["name"])
        program.dependencies += [(index, producer) for producer in _numbers(match["after"] or "[]")]

    def _operand(self, text: str) -> tuple[ViewType, list[int]]:
        match = _OPERAND.match(text)
        if match is None:
            raise Misread(f"malformed operand {text!r}", text)
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


def _numbers(text: str) -> list[int]:
    found = ast.literal_eval(text)
    if not isinstance(found, list) or any(type(number) is not int for number in found):
        raise Misread("not a list of whole numbers", text)
    return found


def _attribute(text: str) -> Any:
    try:
        return attributes.parse(text)
    except IrError as error:
        raise Misread(str(error), text) from None


def _arguments(instruction: str, text: str) -> dict[str, str]:
    """The text of every argument, by name."""
    found: dict[str, str] = {}
    for part in _split_top(text):
        name, _, value = part.partition("=")
        if name.strip() in found:
            raise Misread(f"a second {name.strip()} of {instruction}", part.strip())
        found[name.strip()] = value.strip()
    return found


def _split_top(text: str) -> list[str]:
    """Split at commas outside brackets and quotes."""
    parts, depth, start = [], 0, 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        depth += (token in "([{") - (token in ")]}")
        if token == "," and depth == 0:
            parts.append(text[start : found.start()])
            start = found.end()
    return [*parts, text[start:]] if text[start:].strip() else parts
