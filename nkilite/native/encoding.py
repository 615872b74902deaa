"""Images as bytes and back: data alone, so that reading them runs nothing.

JSON describes numbers, strings, containers and named tuples; what arrays hold follows it. Everything is compressed,
and unpacking stops at a size.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from nkilite.errors import IrError
from nkilite.ir import attributes
from nkilite.ir.program import IMMEDIATE, Check
from nkilite.location import Location
from nkilite.native.image import HbmArray, Held, Image, Stop
from nkilite.native.library import Kept, Source
from nkilite.native.lower import Lowered
from nkilite.native.numbers import Numbers
from nkilite.notices import Notice

UNPACKED_BYTES_AT_MOST = 1 << 28
_COMPRESSION = 1  # zlib's fastest: tables are repetitive, and reading must be quick
_RECORDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (Image, HbmArray, Held, Stop, Lowered, Source, Kept, Location, Notice, Numbers, Check)
}
_PLAIN = (int, float, str, bool, type(None))


class NotData(Exception):
    """A value that has no encoding, bytes that are no encoding, or too many of them."""


def encode(value: object) -> bytes:
    """
    Raises:
        NotData: it holds something else than plain data, or too much.
    """
    arrays: list[bytes] = []
    text = json.dumps(_described(value, arrays), separators=(",", ":")).encode()
    content = b"".join((struct.pack("<Q", len(text)), text, *arrays))
    if len(content) > UNPACKED_BYTES_AT_MOST:
        raise NotData(f"{len(content)} bytes")
    return zlib.compress(content, _COMPRESSION)


def decode(data: bytes) -> Any:
    """
    Raises:
        NotData: these bytes do not come from `encode`.
    """
    unpacker = zlib.decompressobj()
    try:
        content = memoryview(unpacker.decompress(data, UNPACKED_BYTES_AT_MOST))
        if not unpacker.eof:
            raise NotData("too long")
        (length,) = struct.unpack_from("<Q", content)
        text = bytes(content[8 : 8 + length])
        return _made(json.loads(text), content[8 + length :])
    except (zlib.error, struct.error, ValueError, TypeError, LookupError, AttributeError, IrError) as error:
        raise NotData(str(error)) from None


def _described(value: Any, arrays: list[bytes]) -> object:
    """A value as JSON has it: lists begin with what they stand for."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind in (tuple, list):
        return [kind.__name__, *(_described(v, arrays) for v in value)]
    if kind is dict:
        return ["dict", *([_described(k, arrays), _described(v, arrays)] for k, v in value.items())]
    if _RECORDS.get(kind.__name__) is kind:
        return [kind.__name__, *(_described(v, arrays) for v in value)]
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        start = sum(map(len, arrays))
        arrays.append(value.tobytes())
        return ["array", str(value.dtype), list(value.shape), start]
    if isinstance(value, type) and issubclass(value, Warning):
        return ["warning", value.__module__, value.__qualname__]
    if value is IMMEDIATE:
        return ["immediate"]
    try:
        return ["attribute", attributes.text(value)]
    except IrError as error:
        raise NotData(str(error)) from None


def _made(described: Any, data: memoryview) -> object:
    if type(described) in _PLAIN:
        return described
    name, *parts = described
    if name == "array":
        dtype, shape, start = parts
        kind = np.dtype(dtype)
        count = int(np.prod(shape, dtype=np.int64))
        return np.frombuffer(data, kind, count, start).reshape(shape)
    if name == "warning":
        return _warning(*parts)
    if name == "immediate":
        return IMMEDIATE
    if name == "attribute":
        return attributes.parse(*parts)
    if name == "dict":
        return {_made(k, data): _made(v, data) for k, v in parts}
    made: Iterable[Any] = (_made(p, data) for p in parts)
    if name in ("tuple", "list"):
        return tuple(made) if name == "tuple" else list(made)
    return _RECORDS[name](*made)


def _warning(module: str, name: str) -> type[Warning]:
    """A class of warnings: Python's or ours."""
    if module.partition(".")[0] not in ("builtins", "nkilite"):
        raise NotData(f"a warning of {module}")
    found = getattr(sys.modules[module], name)
    if not (isinstance(found, type) and issubclass(found, Warning)):
        raise NotData(f"{module}.{name}, which is no warning")
    return found
