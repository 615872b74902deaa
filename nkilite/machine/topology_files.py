"""Topologies as TOML files: those that come with nkilite, and files of the user's own in the same form."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nkilite.errors import InvalidTopology, NoTopology, UnknownTopology
from nkilite.machine.topology import KINDS, Level, Topology

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["get_topology", "topologies", "topology_for"]

_SHIPPED = Path(__file__).with_name("topologies")
_KEYS = ("device", "inherits", "level")
_FIELDS = {
    "name": "a string", "kind": "one of " + ", ".join(KINDS), "shape": "a list of ints",
    "bytes_per_ns": "a number above 0", "hop_ns": "a number from 0 on", "congestion": "a number from 1 on",
}


@cache
def topologies() -> Mapping[str, Topology]:
    """The topologies that come with nkilite, by name: those of fewer chips first, any number last."""
    found = [_load(path) for path in _SHIPPED.glob("*.toml")]
    return MappingProxyType({t.name: t for t in sorted(found, key=lambda t: (not t.chips, t.chips, t.name))})


def get_topology(name: str) -> Topology:
    """The topology of a name, or of a file ``PATH.toml``.

    Raises:
        UnknownTopology: there is none of that name.
        InvalidTopology: the file does not describe one.
    """
    if name.endswith(".toml"):
        return _load(Path(name).expanduser())
    found = topologies().get(name)
    if found is None:
        raise UnknownTopology(found=name, choices=", ".join(topologies()))
    return found


def topology_for(device: str, chips: int) -> Topology:
    """The smallest topology of a product that comes with nkilite and joins so many chips.

    Raises:
        NoTopology: none does.
    """
    for topology in topologies().values():
        if topology.device == device and (not topology.chips or topology.chips >= chips):
            return topology
    raise NoTopology(device=device)


def _load(path: Path, above: tuple[Path, ...] = ()) -> Topology:
    table = _table(path)
    base = table.get("inherits")
    device = table.get("device")
    levels: tuple[Level, ...] = ()
    if base is not None:
        if not isinstance(base, str):
            raise _invalid(path, f"inherits = {base!r} is not a string")
        following = path.parent / base if base.endswith(".toml") else _SHIPPED / f"{base}.toml"
        if following.resolve() in (p.resolve() for p in (path, *above)):
            raise _invalid(path, "inherits from itself")
        if not following.exists():
            raise _invalid(path, f"inherits = {base!r} is no topology")
        inner = _load(following, (path, *above))
        device, levels = device or inner.device, inner.levels
    if not isinstance(device, str):
        raise _invalid(path, "has no device" if device is None else f"device = {device!r} is not a string")
    own = table.get("level", [])
    if not isinstance(own, list) or not all(isinstance(level, dict) for level in own):
        raise _invalid(path, "level is no list of tables, which begin with [[level]]")
    found = Topology(path.stem, device, (*levels, *(_level(path, level) for level in own)))
    if not found.levels:
        raise _invalid(path, "has no [[level]]")
    if any(not level.size for level in found.levels[:-1]):
        raise _invalid(path, "has a level of any number of units, shape = [0], before another one")
    return found


def _table(path: Path) -> dict[str, object]:
    try:
        table: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _invalid(path, f"cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _invalid(path, f"is not TOML: {error}") from None
    for key in table:
        if key not in _KEYS:
            raise _invalid(path, f"{key} is no key of a topology, which are {', '.join(_KEYS)}")
    return table


def _level(path: Path, table: dict[str, Any]) -> Level:
    for key in table:
        if key not in _FIELDS:
            raise _invalid(path, f"{key} is no field of a level, which are {', '.join(_FIELDS)}")
    for key in _FIELDS:
        if key not in table:
            raise _invalid(path, f"a level has no {key}")
        if not _is_valid(key, table[key]):
            raise _invalid(path, f"{key} = {table[key]!r} is not {_FIELDS[key]}")
    numbers = {key: float(table[key]) for key in ("bytes_per_ns", "hop_ns", "congestion")}
    return Level(table["name"], table["kind"], tuple(table["shape"]), **numbers)


def _is_valid(key: str, value: Any) -> bool:
    if key == "name":
        return isinstance(value, str)
    if key == "kind":
        return value in KINDS
    if key == "shape":
        whole = isinstance(value, list) and value and all(type(n) is int for n in value)
        return bool(whole) and (all(n > 1 for n in value) or value == [0])
    if type(value) not in (int, float) or not value < float("inf"):
        return False
    result: bool = value > 0 if key == "bytes_per_ns" else value >= (1 if key == "congestion" else 0)
    return result


def _invalid(path: Path, problem: str) -> InvalidTopology:
    return InvalidTopology(file=os.fspath(path), problem=problem)
