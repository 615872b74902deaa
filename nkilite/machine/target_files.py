"""Targets as TOML files: every field by its name, what is not given inherited from another target."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from nkilite.dtypes import ALL
from nkilite.errors import InvalidTarget
from nkilite.machine.chip import Target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["is_file", "load", "loaded", "shipped"]

_SHIPPED = Path(__file__).with_name("targets")
_TYPES: dict[str, str] = {f.name: str(f.type) for f in fields(Target)}
_FIELDS = tuple(_TYPES)
_OWN = {"aliases": (), "calibrated": False}  # what is not inherited
_KINDS = {
    "int": "an int", "float": "a number", "str": "a string", "bool": "true or false",
    "tuple[str, ...]": "a list of strings", "tuple[int, ...]": "a list of ints", "frozenset[str]": "a list of strings",
}
_MAY_BE_ZERO = frozenset({
    "sbuf_reserved_bytes", "dma_start_ns", "dma_descriptor_ns", "dma_store_bytes", "launch_ns", "teardown_ns",
    "capture_ns", "dma_trigger_ns", "tensor_warmup_ns",
    "quantize_mx_spare_exponent", "hbm_channels", "unwritten_byte",
})  # fmt: skip
_ENGINES = frozenset({"vector", "gpsimd"})
_GENERATIONS = range(2, 5)
_CORES = (1, 2)

# Files that were read: what they and those they inherit from looked like then, and the target.
_Look: TypeAlias = tuple[str, int, int, int]  # what tells that a file has changed
_read: dict[str, tuple[tuple[_Look, ...], Target]] = {}
_by_name: dict[str, Target] = {}


def is_file(name: str) -> bool:
    """Whether a name of a target is the path of a file."""
    return name.endswith(".toml")


def loaded(name: str) -> Target | None:
    """The target of that name that was loaded from a file."""
    return _by_name.get(name)


def shipped() -> dict[str, Target]:
    """The targets that come with nkilite by name: older generations first, and before what inherits from them."""
    found = []
    tables = {str(path): _table(str(path)) for path in _SHIPPED.glob("*.toml")}
    for path in tables:
        chain = _chain(path, tables)
        found.append((_build(chain), len(chain)))
    return {target.name: target for target, _ in sorted(found, key=lambda f: (f[0].generation, f[1], f[0].name))}


def load(path: str) -> Target:
    """The target of a file; it is read again when it, or a file it inherits from, has changed.

    Raises:
        InvalidTarget: there is no such file, or it does not describe a target.
    """
    place = os.path.abspath(os.path.expanduser(path))
    known = _read.get(place)
    if known is not None and known[0] == tuple(_looks(p) for p, *_ in known[0]):
        return known[1]
    chain = _chain(place)
    looks = tuple(_looks(file) for file, _ in chain)
    target = _build(chain)
    names = {path.stem for path in _SHIPPED.glob("*.toml")}
    if target.name in names:
        raise _invalid(place, f"name = {target.name!r} is that of a target of nkilite", "choose a name of its own")
    _read[place] = looks, target
    _by_name[target.name] = target
    return target


def _looks(path: str) -> _Look:
    """What tells that a file has changed."""
    try:
        status = os.stat(path)
    except OSError:
        return path, 0, 0, 0
    return path, status.st_mtime_ns, status.st_size, status.st_ino


def _chain(
    path: str, known: Mapping[str, dict[str, object]] = MappingProxyType({})
) -> list[tuple[str, dict[str, object]]]:
    """The tables of a file and of those it inherits from, the file itself first; `known` need not be read."""
    chain: list[tuple[str, dict[str, object]]] = []
    while True:
        if path in [file for file, _ in chain]:
            raise _invalid(path, "inherits from itself", "inherit from another target")
        table = known.get(path) or _table(path)
        chain.append((path, table))
        base = table.get("inherits")
        if base is None:
            return chain
        if not isinstance(base, str):
            raise _wrong_kind(path, "inherits", base, "str")
        following = os.path.join(os.path.dirname(path), base) if is_file(base) else str(_SHIPPED / f"{base}.toml")
        if not os.path.exists(following):
            names = ", ".join(sorted(p.stem for p in _SHIPPED.glob("*.toml")))
            raise _invalid(path, f"inherits = {base!r} is no target", f"inherit from {names}, or from another file")
        path = following


def _table(path: str) -> dict[str, object]:
    try:
        with open(path, "rb") as file:
            table: dict[str, object] = tomllib.load(file)
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}", "pass the path of a TOML file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(path, f"is not TOML: {error}", "write lines such as tensor_ghz = 2.8") from None
    for key in table:
        if key not in _FIELDS and key != "inherits":
            near = difflib.get_close_matches(key, _FIELDS, 1)
            raise _invalid(path, f"{key} is no field of a target", f"did you mean {near[0]}?" if near else _REMOVE)
    return table


def _build(chain: list[tuple[str, dict[str, object]]]) -> Target:
    """The target of a chain of tables; errors name the file and the key."""
    values: dict[str, Any] = {}
    for path, table in reversed(chain):
        values = {"name": Path(path).stem, **{k: v for k, v in values.items() if k not in ("name", *_OWN)}, **_OWN} | {
            key: _typed(path, key, value) for key, value in table.items() if key != "inherits"
        }
    path = chain[0][0]
    missing = [name for name in _FIELDS if name not in values]
    if missing:
        problem = f"has no {missing[0]}" + (f" and {len(missing) - 1} other fields" if missing[1:] else "")
        raise _invalid(path, problem, 'begin it with inherits = "trn2", and give what differs')
    target = Target(**values)
    for key, problem in _impossible(target):
        owner = next((file for file, table in chain if key in table), path)
        raise _invalid(owner, f"{key} = {_shown(getattr(target, key))} {problem}", f"correct {key}")
    return target


def _typed(path: str, key: str, value: Any) -> object:
    """A value of a table as the field takes it."""
    kind = _TYPES[key]
    if kind == "float" and type(value) in (int, float):
        return float(value)
    if kind in ("int", "str", "bool") and type(value).__name__ == kind:
        return value
    if kind.startswith(("tuple", "frozenset")) and isinstance(value, list):
        item = int if "int" in kind else str
        if all(type(v) is item for v in value):
            return tuple(value) if kind.startswith("tuple") else frozenset(value)
    raise _wrong_kind(path, key, value, kind)


def _impossible(target: Target) -> Iterator[tuple[str, str]]:
    """Fields with values that no chip has, and what is wrong with them."""
    yield from _impossible_alone(target)
    yield from _impossible_choices(target)
    yield from _impossible_together(target)


def _impossible_alone(target: Target) -> Iterator[tuple[str, str]]:
    """Numbers and names that cannot be, whatever their field."""
    for key in _FIELDS:
        value = getattr(target, key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if not value >= 0 or value == float("inf") or (value == 0 and key not in _MAY_BE_ZERO):
                yield key, "is not positive"
        elif key.endswith("_dtypes") and value - ALL.keys():
            yield key, f"names {sorted(value - ALL.keys())[0]!r}, which is no dtype"
        elif key in ("random_engines", "random_state_engines") and value - _ENGINES:
            yield key, "names another engine than vector and gpsimd"


def _impossible_choices(target: Target) -> Iterator[tuple[str, str]]:
    """Values that are none of those their field can have."""
    if target.generation not in _GENERATIONS:
        yield "generation", "is not from 2 to 4"
    if target.max_logical_core_size not in _CORES:
        yield "max_logical_core_size", "is neither 1 nor 2"
    if target.unwritten_byte > 0xFF:
        yield "unwritten_byte", "is no byte"
    for key in ("dma_transpose_efficiency_hbm", "dma_transpose_efficiency_sbuf"):
        if getattr(target, key) > 1:
            yield key, "is more than 1"


def _impossible_together(target: Target) -> Iterator[tuple[str, str]]:
    """Values that another one rules out."""
    if target.sbuf_reserved_bytes >= target.sbuf_partition_bytes:
        yield "sbuf_reserved_bytes", f"leaves nothing of sbuf_partition_bytes = {target.sbuf_partition_bytes}"
    for key, whole in (("quadrant_partitions", "num_partitions"), ("partitions_per_gpsimd_core", "num_partitions")):
        if getattr(target, whole) % getattr(target, key):
            yield key, f"does not divide {whole} = {getattr(target, whole)}"


_REMOVE = "remove it; nkilite targets trn2 shows all fields"


def _shown(value: object) -> str:
    return repr(sorted(value) if isinstance(value, frozenset) else value)


def _wrong_kind(path: str, key: str, value: object, kind: str) -> InvalidTarget:
    return _invalid(path, f"{key} = {value!r} is not {_KINDS[kind]}", f"give {key} as {_KINDS[kind]}")


def _invalid(path: str, problem: str, hint: str) -> InvalidTarget:
    return InvalidTarget(file=path, problem=problem, hint=hint)
