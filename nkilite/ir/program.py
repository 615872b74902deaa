"""A traced kernel: buffers, interned signatures, and a flat table of instruction words.

Straight-line traces reach hundreds of thousands of instructions, so an instruction is a few machine words:

    [signature id, location id, slot, slot, ...]

with one slot group per argument of its signature, in order: a tensor takes two words (buffer id, byte offset into the
buffer's row-major storage), an indirect tensor four (tensor, then index tensor), an immediate one (constant id).
Everything that many instructions share lives in the `Signature`.

Loops that the device runs are marked by pairs of control instructions around their body (nkilite/ir/loops.py).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from nkilite.dtypes import DType
from nkilite.ir.access import AccessMap, resolve
from nkilite.ir.definition import Definition, Role, public_name, public_operand
from nkilite.ir.rules import ArgumentsByName
from nkilite.ir.types import Buffer, BufferKind, MemoryRegion, OobMode, ViewType
from nkilite.location import UNKNOWN, Location
from nkilite.machine.target import Target
from nkilite.notebook import preformatted

WORDS_BEFORE_ARGUMENTS = 2


class Check(NamedTuple):
    """What a check for NaN looks through.

    Attributes:
        instruction, operand: who writes it.
        tensor: the label of its buffer.
    """

    instruction: str
    operand: str
    tensor: str
    shape: tuple[int, ...]
    location: Location


_WORD_ROLES = (Role.tensor, Role.optional_tensor, Role.scalar_or_tensor, Role.immediate)


class Operand(NamedTuple):
    """A tensor argument of a signature."""

    name: str
    type: ViewType
    word: int  # position of its (buffer, offset) pair in the instruction's words
    reads: bool
    writes: bool


class Immediate(NamedTuple):
    """A number argument of a signature; its value is a word of each instruction."""

    name: str
    word: int


class Signature:
    """An instruction with everything fixed but addresses and immediate values.

    `arguments` maps every parameter to a ViewType (tensor), an `Immediate`, or the compile-time value. Rules read it
    as attributes: ``call.dst.shape``, ``call.op``.
    """

    __slots__ = (
        "_access", "arguments", "definition", "direct", "id", "immediates", "key", "n_words", "operands", "plain",
        "target",
    )

    def __init__(
        self, id: int, definition: Definition, arguments: ArgumentsByName, target: Target, key: tuple[object, ...]
    ) -> None:
        self.id, self.definition, self.arguments, self.target, self.key = id, definition, arguments, target, key
        operands: list[Operand] = []
        immediates: list[Immediate] = []
        word = WORDS_BEFORE_ARGUMENTS
        written = {p.name for p in definition.parameters if p.written} | {"registers"}
        updated = {*definition.updates(arguments), "registers"}
        for name, value in arguments.items():
            if isinstance(value, ViewType):
                writes = name in written
                operands.append(Operand(name, value, word, not writes or name in updated, writes))
                word += 2
                if value.indirection is not None:
                    operands.append(Operand(f"{name}.index", value.indirection.index, word, True, False))
                    word += 2
            elif value is IMMEDIATE:
                immediates.append(Immediate(name, word))
                word += 1
        self.operands, self.immediates, self.n_words = tuple(operands), tuple(immediates), word
        self._access: AccessMap | None = None
        # The tracer can take words without looking at them: two for each tensor; only tensors given by the caller.
        self.direct = not any(o.type.indirection for o in operands)
        self.plain = self.direct and "registers" not in arguments and all(
            isinstance(arguments[p.name], ViewType) for p in definition.parameters if p.role in _WORD_ROLES
        )

    @property
    def name(self) -> str:
        return self.definition.name

    @property
    def title(self) -> str:
        """How messages name it."""
        return public_name(self.name, self.arguments)

    def said(self, operand: str) -> str:
        """How messages name an operand."""
        return public_operand(self.name, self.arguments, operand)

    @property
    def access(self) -> AccessMap:
        """Which loops its operands run over: what its access rule says, evaluated once."""
        if self._access is None:
            self._access = self._resolve_access()
        return self._access

    @property
    def sweep(self) -> int:
        """As `columns`, and of reductions of a row, too."""
        return 0 if any(o.type.dtype.is_wide for o in self.operands) else self.access.sweep

    @property
    def columns(self) -> int:
        """Elements of a row that can go through registers a few at a time, as `access` has it; 0 if none can.

        Steps of 64-bit elements would have more bytes than copies move in one go.
        """
        return 0 if any(o.type.dtype.is_wide for o in self.operands) else self.access.columns

    def _resolve_access(self) -> AccessMap:
        rule = self.definition.rules.get("access")
        kinds = {o.name: o.type for o in self.operands if o.name in self.arguments}  # not the runtime indices
        return resolve(rule(self) if rule else None, kinds, [o.name for o in self.operands if o.writes])

    def __getattr__(self, name: str) -> Any:
        try:
            return self.arguments[name]
        except KeyError:
            raise AttributeError(f"{self.definition.name} has no argument {name}") from None

    def operand(self, name: str) -> Operand:
        return next(o for o in self.operands if o.name == name)

    def is_tensor(self, name: str) -> bool:
        return isinstance(self.arguments[name], ViewType)

    def is_immediate(self, name: str) -> bool:
        return self.arguments[name] is IMMEDIATE

    @property
    def checks_indices(self) -> bool:
        """Whether it may end with an error: at an index that is out of bounds."""
        return self.definition.indexed or any(o.type.indirection is not None for o in self.operands)

    @property
    def skips_out_of_bounds(self) -> bool:
        """Whether an index outside its limit means "transfer nothing" instead of an error."""
        return self.arguments.get("oob_mode") is OobMode.skip

    def __repr__(self) -> str:
        return f"Signature({self.name}, {self.arguments})"


class _ImmediateMarker:
    """Stands in a signature for a number that each instruction carries itself."""

    def __repr__(self) -> str:
        return "imm"

    def __reduce__(self) -> str:
        return "IMMEDIATE"


IMMEDIATE = _ImmediateMarker()


class Instruction:
    """One row of a Program, decoded for passes, printers and the machine model."""

    __slots__ = ("index", "program", "signature", "start")

    def __init__(self, program: Program, index: int, start: int, signature: Signature) -> None:
        self.program, self.index, self.start, self.signature = program, index, start, signature

    @property
    def location(self) -> Location:
        return self.program.locations[self.program.code[self.start + 1]]

    @property
    def name(self) -> str:
        """The name the user gave the instruction, or ''."""
        return self.program.names.get(self.index, "")

    def access(self, operand: Operand) -> tuple[Buffer, int]:
        """Buffer and byte offset of an operand."""
        at = self.start + operand.word
        return self.program.buffers[self.program.code[at]], self.program.code[at + 1]

    @property
    def words(self) -> list[int]:
        return self.program.code[self.start : self.start + self.signature.n_words].tolist()

    def value(self, immediate: Immediate) -> float:
        return self.program.constants[self.program.code[self.start + immediate.word]]


class Program:
    """A specialized kernel: what the tracer writes and passes, machine model and code generator read."""

    def __init__(self, name: str, target: Target, cores: int = 1) -> None:
        """`cores` is how many run a program of the same launch, with which they share HBM."""
        self.name = name
        self.target = target
        self.cores = cores
        self.buffers: list[Buffer] = []
        self.signatures: list[Signature] = []
        self.code = array("q")
        self.constants: list[float] = []
        self.locations: list[Location] = []
        self.names: dict[int, str] = {}
        self.dependencies: list[tuple[int, int]] = []  # (consumer, producer) instruction indices
        self.count = 0
        self.addresses: dict[int, tuple[int, int]] = {}  # chip address by buffer id, set by the allocation pass
        self.inputs: list[Buffer] = []
        self.outputs: list[Buffer] = []
        self.fresh: frozenset[int] = frozenset()  # outputs, by place, that a launch on several cores fills first
        self.watch = ""  # what is looked for in results: nothing, or NAN or SPECIAL of nkilite/ir/numbers.py
        self.fatal = False  # whether it is an error where it is found
        self.checks: list[Check] = []  # made by the pass that looks for it, which notes what it finds in
        self.watched = -1  # this buffer
        self.managed = False  # whether the vendor's compiler would schedule and merge, as in Beta 1
        self.placed = False  # whether it places tiles that have no address, as in Beta 1
        self.disable_dge = False  # whether that compiler makes descriptors, where a call leaves it open
        self.renames = False  # whether that compiler gives every content of a tile memory of its own, as in Beta 1
        self.affine: list[list[int]] = []  # of loops, inner ones first: where their iterations begin and the last ends
        self.open_engines: set[int] = set()  # signatures of calls that left the engine to the compiler
        self._signature_ids: dict[tuple[object, ...], Signature] = {}
        self._location_ids: dict[Location, int] = {}
        self._constant_ids: dict[Any, int] = {}
        self.derived: dict[type, Any] = {}  # what passes have found and may still be right (nkilite/ir/columns.py)
        self._starts: tuple[array[int], int, list[int]] | None = None  # what `starts` found, with code and length

    def __repr__(self) -> str:
        return f"<nki program {self.name} for {self.target.name}: {self.count:,} instructions>"

    def _repr_html_(self) -> str:
        return preformatted(str(self), repr(self)[1:-1])

    # --- building -------------------------------------------------------------------------------------------------

    def add_buffer(
        self,
        region: MemoryRegion,
        shape: tuple[int, ...],
        dtype: DType,
        name: str = "",
        kind: BufferKind = BufferKind.internal,
        address: tuple[int, int] | None = None,
        location: Location = UNKNOWN,
        data: object = None,
        loop: int | None = None,
        dims: tuple[tuple[int, int], ...] = (),
    ) -> Buffer:
        buffer = Buffer.of(
            len(self.buffers), region, shape, dtype, name, kind, address, location, data, loop, dims=dims
        )
        self.buffers.append(buffer)
        if buffer.kind is BufferKind.input:
            self.inputs.append(buffer)
        return buffer

    def signature(self, definition: Definition, arguments: ArgumentsByName) -> Signature:
        """The interned signature of a definition and its normalized arguments."""
        key = (definition.name, *arguments.values())
        found = self._signature_ids.get(key)
        if found is None:
            found = Signature(len(self.signatures), definition, arguments, self.target, key)
            self._signature_ids[key] = found
            self.signatures.append(found)
        return found

    def location_id(self, location: Location) -> int:
        found = self._location_ids.get(location)
        if found is None:
            found = self._location_ids[location] = len(self.locations)
            self.locations.append(location)
        return found

    def constant_id(self, value: float) -> int:
        """The id of an immediate value; 0.0 and -0.0 are different constants."""
        key = value if value else (0.0, math.copysign(1.0, value))
        found = self._constant_ids.get(key)
        if found is None:
            found = self._constant_ids[key] = len(self.constants)
            self.constants.append(float(value))
        return found

    def append(self, words: Sequence[int]) -> int:
        """Append one instruction's words; returns its index."""
        self.code.extend(words)
        self.count += 1
        return self.count - 1

    def rewind(self, words: int, count: int) -> None:
        """Drop the instructions after the first `count`, which take `words` words."""
        del self.code[words:]
        self.count = count
        self.names = {i: name for i, name in self.names.items() if i < count}
        self.dependencies = [(a, b) for a, b in self.dependencies if a < count]

    def reword(self, code: array[int]) -> None:
        """Take other words for the same instructions, each as many as before."""
        known, self._starts = self.starts(), None
        self.code = code
        self._starts = code, len(code), known

    # --- reading --------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Instruction]:
        code, signatures = self.code, self.signatures
        start = 0
        for index in range(self.count):
            signature = signatures[code[start]]
            yield Instruction(self, index, start, signature)
            start += signature.n_words

    def starts(self) -> list[int]:
        """The word position of every instruction; kept until there is other code, and not to be changed."""
        if self._starts is None or self._starts[0] is not self.code or self._starts[1] != len(self.code):
            code = self.code
            widths = [s.n_words for s in self.signatures]
            positions = []
            start = 0
            for _ in range(self.count):
                positions.append(start)
                start += widths[code[start]]
            self._starts = self.code, len(code), positions
        return self._starts[2]


