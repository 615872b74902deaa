"""Micro-kernels that know no sizes: written for one instruction, found by all of its kind, dtypes and dimensions.

The rule that lowers an instruction writes one, given sizes in the place of numbers (nkilite/ir/sizes.py): extents,
strides and pitches become words of the table entry where they do not decide what is written. One of the same kind that
answers the same questions takes the code as it is. What has been written is kept on disk, in the log of its object
code, so that a kernel finds what others have needed, in any process.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from nkilite import forking
from nkilite.codegen import group
from nkilite.codegen.emitter import Emitter
from nkilite.codegen.kernel import MicroKernel
from nkilite.host.cpu import Host
from nkilite.ir import attributes
from nkilite.ir.program import IMMEDIATE, WORDS_BEFORE_ARGUMENTS, Signature
from nkilite.ir.sizes import Form, Sizes
from nkilite.ir.types import Indirection, MemoryRegion, ViewType
from nkilite.native.cache import Store, store
from nkilite.native.library import Library, Source, library
from nkilite.native.log import Record, key_of
from nkilite.native.lower import cpu_operands, source_of
from nkilite.native.operands import Member
from nkilite.native.versions import versions

_SHOWN = {MemoryRegion.psum: MemoryRegion.sbuf, MemoryRegion.shared_hbm: MemoryRegion.private_hbm}
_FORMS_AT_MOST = 64  # of a kind: those written first go


class Written(NamedTuple):
    """A micro-kernel.

    Attributes:
        form: what it is right for.
        source: without text if it was found on disk.
        leads: whether its status may say where to go on.
        stack: bytes of its scratch.
        text_bytes: of its text.
    """

    form: Form
    source: Source
    leads: bool
    stack: int
    text_bytes: int


class Forms:
    """All those of a host that this process knows."""

    def __init__(self, host: Host) -> None:
        self._host, self._library = host, library(host)
        self._lock = forking.lock()
        self._known: dict[str, list[Written]] = {}
        self._disk: Store | None = None
        self._made_by = ""

    def of(self, members: Sequence[Member]) -> list[tuple[Written, list[int]]]:
        """A micro-kernel for each member, and the sizes that it takes there. Their code is loaded, or has text."""
        with self._lock:
            return self._of(members)

    def _of(self, members: Sequence[Member]) -> list[tuple[Written, list[int]]]:
        disk = store()
        if disk is not self._disk:
            self._disk, made_by = disk, versions()
            self._made_by = f"{made_by} {self._library.made_by}"
            if made_by is None:
                self._disk = None
        kinds = [_kind(member) for member in members]
        numbers = [tuple(_numbers(member)) for member in members]
        matches = self._loaded(kinds, numbers)
        fresh: list[Record] = []
        found = []
        for member, kind, given, match in zip(members, kinds, numbers, matches, strict=True):
            one = match or self._found(kind, given)  # written just now
            if one is None:
                one = _write(member, given, self._host, self._library)
                self._known[kind] = [*self._known[kind], one[0]][-_FORMS_AT_MOST:]
                fresh.append(Record((self._key(kind),), _content(one[0])))
            found.append(one)
        if fresh and self._disk is not None:
            self._library.log(self._disk).add(fresh)
        return found

    def _loaded(
        self, kinds: Sequence[str], numbers: Sequence[tuple[int, ...]]
    ) -> list[tuple[Written, list[int]] | None]:
        """What others have written, as far as there is any, loaded; what is gone is forgotten."""
        self._read(set(kinds) - self._known.keys())
        while True:
            matches = [self._found(*pair) for pair in zip(kinds, numbers, strict=True)]
            bare = {match[0].source for match in matches if match is not None and not match[0].source.text}
            gone = {source.name for source in bare} - self._library.load(bare)
            if not gone:
                return matches
            for kind in kinds:
                self._known[kind] = [w for w in self._known[kind] if w.source.name not in gone]

    def _found(self, kind: str, given: tuple[int, ...]) -> tuple[Written, list[int]] | None:
        for written in reversed(self._known[kind]):
            arguments = written.form.fit(given)
            if arguments is not None:
                return written, arguments
        return None

    def _read(self, kinds: Iterable[str]) -> None:
        """Know those on disk."""
        keys = {self._key(kind): kind for kind in kinds}
        records = {} if self._disk is None else self._library.log(self._disk).newest(list(keys), _FORMS_AT_MOST)
        for key, kind in keys.items():
            self._known[kind] = [_written(record.content) for record in reversed(records.get(key, []))]

    def _key(self, kind: str) -> str:
        return key_of(self._made_by, kind)


_forms: dict[str, Forms] = {}


def forms(host: Host) -> Forms:
    """Those of a host level."""
    found = _forms.get(host.level)
    if found is None or found._library is not library(host):
        found = _forms[host.level] = Forms(host)
    return found


def _content(w: Written) -> bytes:
    """A micro-kernel as data, without its text."""
    constants, steps, arguments = w.form
    numbers = constants, list(itertools.chain.from_iterable(steps)), arguments
    return json.dumps([w.source.name, w.source.key, w.leads, w.stack, w.text_bytes, *numbers]).encode()


def _written(content: bytes) -> Written:
    name, key, leads, stack, text_bytes, constants, steps, arguments = json.loads(content)
    form = Form(tuple(constants), tuple(zip(*[iter(steps)] * 3, strict=True)), tuple(arguments))
    return Written(form, Source(name, "", (), True, key), leads, stack, text_bytes)


def _kind(member: Member) -> str:
    """What an instruction is but for the numbers in it."""
    call = member.signature
    return repr((call.target.digest, call.name, [(name, _described(v)) for name, v in call.arguments.items()]))


def _described(value: object) -> str:
    if isinstance(value, ViewType):
        by = value.indirection
        index = "" if by is None else f" {by.kind.value} {_described(by.index)}"
        return f"{value.dtype} {_shown(value.region).value} {value.ndim}{index}"
    return "imm" if value is IMMEDIATE else attributes.text(value)


def _numbers(member: Member) -> Iterator[int]:
    """Those of an instruction, in order."""
    for operand in member.signature.operands:
        yield from operand.type.shape
        yield from operand.type.strides
        if operand.type.indirection is not None:
            yield operand.type.indirection.stride
            yield operand.type.indirection.limit
    for row, pitch in member.pitches:
        assert isinstance(pitch, int), "panels are for those who know all sizes"
        yield row
        yield pitch


def _write(member: Member, given: tuple[int, ...], host: Host, library: Library) -> tuple[Written, list[int]]:
    """The micro-kernel of an instruction whose numbers are given, and the sizes that it takes there."""
    sizes = Sizes(given)
    left = iter(sizes.given)
    signature = _with_sizes(member.signature, left)
    pitches = tuple((next(left), next(left)) for _ in member.pitches)
    words = signature.n_words - WORDS_BEFORE_ARGUMENTS
    e = Emitter(host, sizes_at=8 * words)
    kernel = MicroKernel(signature, host, cpu_operands(signature, pitches), e)
    group.write([kernel], None)
    source = source_of(kernel).quickly
    source = source._replace(key=library.key_of(source))
    return Written(sizes.form(), source, kernel.leads, e.stack, len(source.text)), sizes.arguments


def _with_sizes(call: Signature, left: Iterator[int]) -> Signature:
    """The same instruction of sizes."""
    arguments = {name: _view(v, left) if isinstance(v, ViewType) else v for name, v in call.arguments.items()}
    return Signature(call.id, call.definition, arguments, call.target, call.key)


def _view(kind: ViewType, left: Iterator[int]) -> ViewType:
    shape = tuple(next(left) for _ in kind.shape)
    strides = tuple(next(left) for _ in kind.strides)
    by = kind.indirection
    if by is not None:
        stride, limit = next(left), next(left)
        by = Indirection(by.kind, _view(by.index, left), stride, limit)
    return ViewType(_shown(kind.region), kind.dtype, shape, strides, by)


def _shown(region: MemoryRegion) -> MemoryRegion:
    """What rules see in the place of a memory: to this CPU, PSUM is like SBUF, and all HBM is one."""
    return _SHOWN.get(region, region)
