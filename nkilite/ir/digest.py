"""A digest of a traced program: equal digests mean equal programs, in this process and in any other.

With lines it covers all that decides what is compiled and what errors and warnings say; without, what is computed:
names of files and tensors, and lines, may differ.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nkilite.ir import attributes
from nkilite.ir.program import IMMEDIATE, Program, Signature
from nkilite.ir.types import ViewType

_BYTES = 20


def digest(*programs: Program, lines: bool = True) -> str:
    """Hexadecimal digits of a program, or of one per core, as traced, before any pass.

    Args:
        lines: whether names and the user's lines belong to it.
    """
    found = hashlib.blake2b(digest_size=_BYTES)
    for program in programs:
        for part in _parts(program, lines):
            content = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
            found.update(b"%d " % len(content))
            found.update(content)
    return found.hexdigest()


def _parts(program: Program, lines: bool) -> Iterator[str | bytes]:
    yield program.target.digest
    yield repr([_signature(s) for s in program.signatures])
    yield repr(program.count)
    yield _code(program, lines)
    yield np.array(program.constants, np.float64).tobytes()
    yield repr([[b.id for b in program.inputs], [b.id for b in program.outputs], sorted(program.fresh)])
    yield from _listed([b.type for b in program.buffers], _type)
    yield from _listed([b.kind for b in program.buffers], lambda kind: kind.value)
    yield from _listed([b.address for b in program.buffers], lambda address: address)
    yield from _listed([b.loop for b in program.buffers], lambda loop: loop)
    yield repr([(b.id, b.data.dtype.str, b.data.shape) for b in program.buffers if b.data is not None])
    yield from (b.data.tobytes() for b in program.buffers if b.data is not None)
    yield repr((program.watch, program.fatal))
    yield repr([sorted(program.open_engines), sorted(program.dependencies), sorted(program.names.items())])
    if lines:
        yield repr([program.name, [tuple(where) for where in program.locations]])
        yield repr([b.name for b in program.buffers])
        yield from _listed([b.location for b in program.buffers], tuple)


def _code(program: Program, lines: bool) -> bytes:
    """The words of all instructions; those that number their lines are zero where lines do not count."""
    words = np.array(program.code, np.int64)
    if not lines and program.count:
        words[np.array(program.starts()) + 1] = 0
    return words.tobytes()


@functools.lru_cache(1 << 10)
def identity(signature: Signature) -> str:
    """Equal for signatures, of any program, of which everything is equal but their numbers."""
    return repr((signature.target.digest, _signature(signature)))


def _signature(signature: Signature) -> tuple[object, ...]:
    return signature.name, [(name, _argument(value)) for name, value in signature.arguments.items()]


def _argument(value: object) -> str:
    return str(value) if isinstance(value, ViewType) else "imm" if value is IMMEDIATE else attributes.text(value)


def _type(kind: ViewType) -> tuple[object, ...]:
    return kind.region.value, str(kind.dtype), kind.shape


def _listed(values: Sequence[Any], described: Callable[[Any], Any]) -> Iterator[str | bytes]:
    """Descriptions of the distinct values, in the order in which they come, and the number of each value's."""
    numbers: dict[Any, int] = {}
    found = np.array([numbers.setdefault(value, len(numbers)) for value in values], np.int64)
    yield repr([described(value) for value in numbers])
    yield found.tobytes()
