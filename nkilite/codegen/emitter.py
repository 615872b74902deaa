"""Writes one LLVM function as text: typed SSA values, structured loops, and nothing about NKI.

Text is several times cheaper to produce than an llvmlite.ir tree, and micro-kernels are compiled without LLVM's IR
passes, so what is emitted here is what runs: values stay in SSA form, loops carry their state in phis, and vectors have
explicit widths (LLVM splits widths beyond the native register into several registers, which unrolls for free).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from nkilite.host.cpu import Host
from nkilite.ir.sizes import Size


class Value(NamedTuple):
    """An SSA name or constant with its type; `lanes` is 0 for scalars."""

    ref: str
    scalar: str
    lanes: int = 0

    @property
    def type(self) -> str:
        return f"<{self.lanes} x {self.scalar}>" if self.lanes else self.scalar

    def __str__(self) -> str:
        return f"{self.type} {self.ref}"


class Loop:
    """A counted loop being written: its index, the values it carries in, and, once closed, the values it left."""

    def __init__(self, index: Value, initial: tuple[Value, ...], name: Callable[[], str] | None = None) -> None:
        """`name` gives values their names; None where the body runs once, as straight-line code."""
        self.index = index
        self.initial = initial
        self._name = name
        self.values = self._named(initial)
        self.results = self._named(initial)
        self._next = self.values

    def _named(self, values: tuple[Value, ...]) -> tuple[Value, ...]:
        return values if self._name is None else tuple(v._replace(ref=self._name()) for v in values)

    def carry(self, *values: Value) -> None:
        """The values the next iteration starts from."""
        assert len(values) == len(self.values)
        self._next = values

    def enter(self, initial: Value) -> Value:
        """One more value that is carried in; what it is at first is known in front of the loop."""
        (value,), (result,) = self._named((initial,)), self._named((initial,))
        self.initial, self.values, self._next = (*self.initial, initial), (*self.values, value), (*self._next, value)
        self.results = (*self.results, result)
        return value

    def leave(self, at: int, values: Sequence[Value]) -> list[Value]:
        """At the end of the body: what carried values, from one on, become; what they are after the loop."""
        end = at + len(values)
        self._next = (*self._next[:at], *values, *self._next[end:])
        return list(values if self._name is None else self.results[at:end])


_FLOATS = ("float", "double", "half")
BITS = {"i8": 8, "i16": 16, "half": 16, "i32": 32, "float": 32, "i64": 64, "double": 64}
INTEGERS = {BITS[name] // 8: name for name in ("i8", "i16", "i32", "i64")}  # by bytes


_LEAST_SCRATCH = 1 << 10  # bytes, where it is not known how much is needed


class Emitter:
    """Accumulates the body of one function.

    Every operation returns a Value; scalar and vector operands must agree in lanes (use `splat`).
    """

    def __init__(self, host: Host, sizes_at: int = 0) -> None:
        """`sizes_at` is the byte of the words at which there are the sizes that the function takes."""
        self.host = host
        self.brief = sizes_at > 0  # what knows no sizes is compiled in a hurry: short text is better than fast code
        self._sizes_at = sizes_at
        self._sizes: set[int] = set()  # of which are written
        self.declarations: dict[str, str] = {}
        self.stack = 0  # bytes of scratch
        self._scratch: list[str] = []
        self._variables: dict[str, Value | None] = {}
        self._lines: list[str] = []
        self._known: dict[str, Value] = {}  # what the block has computed: instructions that depend on operands alone
        self._count = 0
        self._block = "entry"

    # --- text -----------------------------------------------------------------------------------------------------

    def _name(self) -> str:
        self._count += 1
        return f"%v{self._count}"

    def _emit(self, text: str, scalar: str, lanes: int) -> Value:
        """An instruction that reads memory, or does more than yield a value."""
        name = self._name()
        self._lines.append(f"  {name} = {text}")
        return Value(name, scalar, lanes)

    def _pure(self, text: str, scalar: str, lanes: int) -> Value:
        """An instruction whose value depends on its operands alone: a block has each once."""
        found = self._known.get(text)
        if found is None:
            found = self._known[text] = self._emit(text, scalar, lanes)
        return found

    def line(self, text: str) -> None:
        """Append an instruction that yields nothing."""
        self._lines.append("  " + text)

    def label(self, hint: str = "b") -> str:
        self._count += 1
        return f"{hint}{self._count}"

    def start_block(self, label: str) -> None:
        """Begin a basic block; the previous one must have ended in a branch."""
        self._lines.append(f"{label}:")
        self._block = label
        self._known = {}

    def body(self) -> str:
        return "\n".join([*self._scratch, *self._lines])

    # --- constants ------------------------------------------------------------------------------------------------

    def const(self, scalar: str, value: float | int | bool, lanes: int = 0) -> Value:
        """A constant, repeated in every lane."""
        text = literal(scalar, value)
        if lanes:
            text = f"splat ({scalar} {text})"
        return Value(text, scalar, lanes)

    def f32(self, value: float, lanes: int = 0) -> Value:
        return self.const("float", value, lanes)

    def i32(self, value: int, lanes: int = 0) -> Value:
        return self.const("i32", value, lanes)

    def i64(self, value: int | Size) -> Value:
        return self._size(value) if type(value) is Size else self.const("i64", value)

    def _size(self, size: Size) -> Value:
        """A size that the function is told when it is called."""
        place = size.sizes.argument(size)
        name = f"%n{place}"
        if place not in self._sizes:
            self._sizes.add(place)
            self._scratch += [
                f"  {name}at = getelementptr i8, ptr %words, i64 {self._sizes_at + 8 * place}",
                f"  {name} = load i64, ptr {name}at, align 8",
            ]
        return Value(name, "i64")

    def vector(self, scalar: str, values: Sequence[float | int]) -> Value:
        """A constant vector with one value per lane."""
        inner = ", ".join(f"{scalar} {literal(scalar, v)}" for v in values)
        return Value(f"<{inner}>", scalar, len(values))

    def undef(self, scalar: str, lanes: int) -> Value:
        return Value("poison", scalar, lanes)

    # --- arithmetic -----------------------------------------------------------------------------------------------

    def _alike(self, a: Value | float, b: Value | float) -> tuple[Value, Value]:
        """Two operands; a number is one like the other, in all lanes."""
        if isinstance(a, Value):
            return a, b if isinstance(b, Value) else self._like(a, b)
        assert isinstance(b, Value)
        return self._like(b, a), b

    def _like(self, a: Value, number: float) -> Value:
        if type(number) is Size and a.type == "i64":
            return self._size(number)
        return self.const(a.scalar, number, a.lanes)

    def binary(self, op: str, a: Value | float, b: Value | float) -> Value:
        """An LLVM binary instruction such as fadd, sub, and, lshr. One operand may be a number, here and below."""
        a, b = self._alike(a, b)
        return self._pure(f"{op} {a.type} {a.ref}, {b.ref}", a.scalar, a.lanes)

    def add(self, a: Value, b: Value | float) -> Value:
        a, b = self._alike(a, b)
        if a.scalar == "i64" and "0" in (a.ref, b.ref):
            return b if a.ref == "0" else a
        return self.binary("fadd" if a.scalar in _FLOATS else "add", a, b)

    def sub(self, a: Value | float, b: Value | float) -> Value:
        a, b = self._alike(a, b)
        return self.binary("fsub" if a.scalar in _FLOATS else "sub", a, b)

    def mul(self, a: Value, b: Value | float) -> Value:
        a, b = self._alike(a, b)
        if a.scalar == "i64":
            for one, other in ((a, b), (b, a)):
                if one.ref in ("0", "1"):
                    return one if one.ref == "0" else other
        return self.binary("fmul" if a.scalar in _FLOATS else "mul", a, b)

    def div(self, a: Value | float, b: Value | float) -> Value:
        a, b = self._alike(a, b)
        return self.binary("fdiv" if a.scalar in _FLOATS else "sdiv", a, b)

    def and_(self, a: Value, b: Value | float) -> Value:
        return self.binary("and", a, b)

    def or_(self, a: Value, b: Value | float) -> Value:
        return self.binary("or", a, b)

    def xor(self, a: Value, b: Value | float) -> Value:
        return self.binary("xor", a, b)

    def shl(self, a: Value, b: Value | float) -> Value:
        return self.binary("shl", a, b)

    def lshr(self, a: Value, b: Value | float) -> Value:
        return self.binary("lshr", a, b)

    def ashr(self, a: Value, b: Value | float) -> Value:
        return self.binary("ashr", a, b)

    def neg(self, a: Value) -> Value:
        if a.scalar in _FLOATS:
            return self._pure(f"fneg {a.type} {a.ref}", a.scalar, a.lanes)
        return self.sub(self.const(a.scalar, 0, a.lanes), a)

    def not_(self, a: Value) -> Value:
        return self.xor(a, self.const(a.scalar, -1 if a.scalar != "i1" else 1, a.lanes))

    def fma(self, a: Value, b: Value | float, c: Value | float) -> Value:
        """a * b + c: fused where the CPU can, two roundings where it cannot."""
        if self.host.fma:
            return self.intrinsic("llvm.fma", a, *(v if isinstance(v, Value) else self._like(a, v) for v in (b, c)))
        return self.add(self.mul(a, b), c)

    def dot_pairs(self, a: Value, b: Value, c: Value) -> Value:
        """The product of each word's lower bfloat16, plus that of the upper ones, plus c in float32.

        Subnormals count as zero. For 16 words on CPUs that multiply pairs.
        """
        pairs = (self.recast(words, "bfloat", 2 * words.lanes) for words in (a, b))
        return self.call("llvm.x86.avx512bf16.dpbf16ps.512", c.scalar, c.lanes, c, *pairs)

    def maximum(self, a: Value, b: Value | float) -> Value:
        """Larger of two floats or signed integers; a NaN operand gives NaN."""
        a, b = self._alike(a, b)
        return self.intrinsic("llvm.maximum" if a.scalar in _FLOATS else "llvm.smax", a, b)

    def minimum(self, a: Value, b: Value | float) -> Value:
        """Smaller of two floats or signed integers; a NaN operand gives NaN."""
        a, b = self._alike(a, b)
        return self.intrinsic("llvm.minimum" if a.scalar in _FLOATS else "llvm.smin", a, b)

    def abs(self, a: Value) -> Value:
        return self.intrinsic("llvm.fabs", a)

    def sqrt(self, a: Value) -> Value:
        return self.intrinsic("llvm.sqrt", a)

    # --- comparison and selection ---------------------------------------------------------------------------------

    def compare(self, predicate: str, a: Value | float, b: Value | float) -> Value:
        """An i1 per lane; predicates are LLVM's (oeq, olt, une, ... for floats; eq, slt, ult, ... for integers)."""
        a, b = self._alike(a, b)
        kind = "fcmp" if a.scalar in _FLOATS else "icmp"
        return self._pure(f"{kind} {predicate} {a.type} {a.ref}, {b.ref}", "i1", a.lanes)

    def select(self, condition: Value, a: Value | float, b: Value | float) -> Value:
        a, b = self._alike(a, b)
        return self._pure(f"select {condition}, {a}, {b}", a.scalar, a.lanes)

    def bits(self, mask: Value) -> Value:
        """An i64 whose bit i is lane i of an i1 vector."""
        packed = self._pure(f"bitcast {mask} to i{mask.lanes}", f"i{mask.lanes}", 0)
        return packed if mask.lanes == 64 else self.convert("zext", packed, "i64")

    # --- conversion -----------------------------------------------------------------------------------------------

    def convert(self, op: str, a: Value, scalar: str) -> Value:
        """An LLVM cast such as zext, trunc, sitofp, bitcast (same lanes)."""
        to = f"<{a.lanes} x {scalar}>" if a.lanes else scalar
        return self._pure(f"{op} {a} to {to}", scalar, a.lanes)

    def bitcast(self, a: Value, scalar: str) -> Value:
        return self.convert("bitcast", a, scalar) if a.scalar != scalar else a

    def recast(self, a: Value, scalar: str, lanes: int) -> Value:
        """The bits of a vector as so many lanes of another size."""
        return self._pure(f"bitcast {a} to <{lanes} x {scalar}>", scalar, lanes)

    # --- vectors --------------------------------------------------------------------------------------------------

    def splat(self, a: Value, lanes: int) -> Value:
        """A scalar in every lane."""
        if lanes == 0 or a.lanes:
            return a
        one = self._pure(f"insertelement <{lanes} x {a.scalar}> poison, {a}, i64 0", a.scalar, lanes)
        return self._pure(
            f"shufflevector {one}, <{lanes} x {a.scalar}> poison, <{lanes} x i32> zeroinitializer", a.scalar, lanes
        )

    def insert(self, vector: Value, a: Value, lane: int) -> Value:
        return self._pure(f"insertelement {vector}, {a}, i64 {lane}", vector.scalar, vector.lanes)

    def extract(self, vector: Value, lane: int) -> Value:
        return self._pure(f"extractelement {vector}, i64 {lane}", vector.scalar, 0)

    def shuffle(self, a: Value, b: Value | None, lanes: Sequence[int]) -> Value:
        """Choose lanes of a (0..n-1) and b (n..2n-1)."""
        mask = ", ".join("i32 poison" if i < 0 else f"i32 {i}" for i in lanes)
        other = b if b is not None else self.undef(a.scalar, a.lanes)
        return self._pure(f"shufflevector {a}, {other}, <{len(lanes)} x i32> <{mask}>", a.scalar, len(lanes))

    def join(self, parts: Sequence[Value]) -> Value:
        """Vectors after each other; a power of two of them."""
        while len(parts) > 1:
            parts = [self.shuffle(a, b, range(2 * a.lanes)) for a, b in zip(parts[::2], parts[1::2], strict=True)]
        return parts[0]

    def fold(self, a: Value, combine: Callable[[Value, Value], Value], lanes: int = 1) -> Value:
        """The halves of a vector combined, and those of what they are, until so many lanes are left."""
        while a.lanes > lanes:
            half = a.lanes // 2
            a = combine(self.shuffle(a, None, range(half)), self.shuffle(a, None, range(half, 2 * half)))
        return a

    # --- calls ----------------------------------------------------------------------------------------------------

    def intrinsic(self, name: str, *arguments: Value, suffix: str | None = None) -> Value:
        """Call an overloaded intrinsic whose result has the type of its first argument."""
        a = arguments[0]
        short = {"float": "f32", "double": "f64", "half": "f16"}.get(a.scalar, a.scalar)
        full = f"{name}.{suffix or (f'v{a.lanes}{short}' if a.lanes else short)}"
        return self.call(full, a.scalar, a.lanes, *arguments)

    def call(self, name: str, scalar: str, lanes: int, *arguments: Value) -> Value:
        """Call a function or intrinsic, declaring it."""
        returns = f"<{lanes} x {scalar}>" if lanes else scalar
        types = ", ".join(a.type for a in arguments)
        self.declarations[name] = f"declare {returns} @{name}({types})"
        values = ", ".join(map(str, arguments))
        if scalar == "void":
            self.line(f"call void @{name}({values})")
            return Value("", "void")
        return self._emit(f"call {returns} @{name}({values})", scalar, lanes)

    def call_at(self, function: Value, scalar: str, *arguments: Value) -> Value:
        """Call the function at an address."""
        return self._emit(f"call {scalar} {function.ref}({', '.join(map(str, arguments))})", scalar, 0)

    # --- memory ---------------------------------------------------------------------------------------------------

    def load(self, scalar: str, pointer: Value, lanes: int = 0, align: int = 1) -> Value:
        kind = f"<{lanes} x {scalar}>" if lanes else scalar
        if pointer.ref in self._variables:
            held = self.held(pointer)
            return held if held.type == kind else self._pure(f"bitcast {held} to {kind}", scalar, lanes)
        return self._emit(f"load {kind}, ptr {pointer.ref}, align {align}", scalar, lanes)

    def store(self, value: Value, pointer: Value, align: int = 1, streaming: bool = False) -> None:
        if pointer.ref in self._variables:
            self._variables[pointer.ref] = value
            return
        native = self.host.vector_bits // BITS[value.scalar] if value.scalar in BITS else value.lanes
        if value.lanes > native:
            # In the order of addresses, which LLVM does not keep when it splits a store: lines that unaligned stores
            # share would be filled out of turn, at twice the time.
            align = min(align, self.host.vector_bits // 8)
            for first in range(0, value.lanes, native):
                part = self.shuffle(value, None, range(first, first + native))
                self.store(part, self.offset(pointer, first * BITS[value.scalar] // 8), align, streaming)
            return
        hint = ", !nontemporal !0" if streaming else ""
        self.line(f"store {value}, ptr {pointer.ref}, align {align}{hint}")

    def offset(self, pointer: Value, bytes: Value | int) -> Value:
        """A pointer some bytes further, or a larger number."""
        if not isinstance(bytes, Value):
            if type(bytes) is int and bytes == 0:
                return pointer
            bytes = self.i64(bytes)
        if pointer.scalar == "i64":
            return self.add(pointer, bytes)
        return self._pure(f"getelementptr i8, ptr {pointer.ref}, {bytes}", "ptr", 0)

    def step(self, pointer: Value, index: Value, stride: int) -> Value:
        """pointer + index * stride bytes, or a number + index * stride."""
        if index.ref == "0":
            return pointer
        if type(stride) is Size:
            return self.offset(pointer, self.mul(index, self.i64(stride)))
        if stride == 0:
            return pointer
        return self.offset(pointer, index if stride == 1 else self.mul(index, self.i64(stride)))

    def steps(self, at: Sequence[Value], index: Value, strides: Sequence[int]) -> list[Value]:
        """`step` of several."""
        return [self.step(pointer, index, stride) for pointer, stride in zip(at, strides, strict=True)]

    def prefetch(self, pointer: Value, write: bool = False, locality: int = 3) -> None:
        self.declarations["llvm.prefetch.p0"] = "declare void @llvm.prefetch.p0(ptr, i32, i32, i32)"
        self.line(f"call void @llvm.prefetch.p0(ptr {pointer.ref}, i32 {int(write)}, i32 {locality}, i32 1)")

    def variable(self, value: Value | None = None) -> Value:
        """The address of a value in registers: what is stored there replaces it, what is loaded is the value's bits.

        For straight-line code that takes no address near it and loads as many bytes as were stored.
        """
        name = self._name()
        self._variables[name] = value
        return Value(name, "ptr")

    def held(self, variable: Value) -> Value:
        """What a variable holds."""
        value = self._variables[variable.ref]
        assert value is not None, "read before it is written"
        return value

    def scratch(self, bytes: int | Size, align: int = 64) -> Value:
        """Stack memory that lives until the micro-kernel returns; in a loop, all iterations get the same."""
        name = self._name()
        if type(bytes) is Size:  # room for more is right for all that need less
            needed, bytes = bytes, _LEAST_SCRATCH
            while bytes < needed:
                bytes *= 2
        self.stack += bytes + align
        self._scratch.append(f"  {name} = alloca [{bytes} x i8], align {align}")
        return Value(name, "ptr")

    # --- control --------------------------------------------------------------------------------------------------

    @contextmanager
    def loop(self, count: int | Value, *initial: Value, start: int | Value = 0, step: int = 1) -> Iterator[Loop]:
        """A counted loop: index = start, start + step, ... below count.

        Values named in `initial` are carried from iteration to iteration: read them from `loop.values`, hand on new
        ones with `loop.carry(...)`, and find the last ones in `loop.results` after the block. A constant trip count of
        0 writes nothing executable; of 1, straight-line code.
        """
        certain = False
        if isinstance(count, int) and isinstance(start, int):
            certain = not start + step >= count
            if not certain and count > start:
                loop = Loop(self.i64(start), initial)
                yield loop
                loop.results = loop._next
                return
        # The test is at the end: what the body needs and does not change, such as constants, LLVM then keeps in
        # registers, for it is needed whenever the loop is entered.
        limit, first = (n if isinstance(n, Value) else self.i64(n) for n in (count, start))
        body, exit, before = self.label("body"), self.label("exit"), self._block
        some = self.const("i1", True) if certain else self.compare("slt", first, limit)
        self.line(f"br {some}, label %{body}, label %{exit}")
        self.start_block(body)
        begin = len(self._lines)
        loop = Loop(Value(self._name(), "i64"), initial, self._name)
        yield loop
        advanced = self.add(loop.index, self.i64(step))
        self.line(f"br {self.compare('slt', advanced, limit)}, label %{body}, label %{exit}")
        latch = self._block
        begun, ended = (first, *loop.initial), (advanced, *loop._next)
        self._lines[begin:begin] = _phis((loop.index, *loop.values), (before, begun), (latch, ended))
        self.start_block(exit)
        self._lines += _phis(loop.results, (before, loop.initial), (latch, loop._next))

    @contextmanager
    def when(self, condition: Value) -> Iterator[None]:
        """Run the block only if a scalar i1 holds; it must not define values used afterwards."""
        then, after = self.label("then"), self.label("after")
        self.line(f"br {condition}, label %{then}, label %{after}")
        self.start_block(then)
        yield
        self.line(f"br label %{after}")
        self.start_block(after)

    def either(self, condition: Value, one: Callable[[], Value], other: Callable[[], Value]) -> Value:
        """The first of two values if a scalar i1 holds, else the second; the other is not computed."""
        labels, after = (self.label("then"), self.label("else")), self.label("after")
        self.line(f"br {condition}, label %{labels[0]}, label %{labels[1]}")
        sources = []
        for label, write in zip(labels, (one, other), strict=True):
            self.start_block(label)
            value = write()
            sources.append((self._block, [value]))
            self.line(f"br label %{after}")
        self.start_block(after)
        found = value._replace(ref=self._name())
        self._lines += _phis([found], *sources)
        return found

    def ret(self, code: int | Value) -> None:
        """End the function with a status; 0 is success."""
        self.line(f"ret i32 {code if isinstance(code, int) else code.ref}")


def _phis(values: Sequence[Value], *sources: tuple[str, Sequence[Value]]) -> list[str]:
    """What values are, coming from some blocks."""
    choices = [[f"[ {v.ref}, %{block} ]" for v in given] for block, given in sources]
    return [f"  {v.ref} = phi {v.type} {', '.join(c)}" for v, *c in zip(values, *choices, strict=True)]


def literal(scalar: str, value: float | int | bool) -> str:
    """The text of a constant; floats are written by their exact bits."""
    if scalar in ("float", "double"):
        if scalar == "float":
            (value,) = struct.unpack("f", struct.pack("f", value))
        return "0x" + struct.pack(">d", value).hex().upper()
    if scalar == "half":
        return "0xH" + struct.pack(">e", value).hex().upper()
    if scalar == "ptr":
        return "null"
    return str(int(value))
