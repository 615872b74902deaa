"""The arguments of a call taken apart: tensors and floats on one side, a template of all the rest on the other."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import SupportsInt

from nkilite.runtime.containers import is_record, map_leaves
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.opaque import Foreign


class Place:
    """Where a tensor, or a float, goes in a template."""

    __slots__ = ("floats", "number")

    def __init__(self, number: int, floats: bool) -> None:
        self.number, self.floats = number, floats


@dataclass(frozen=True)
class Call:
    """A call of a kernel.

    Attributes:
        template: positional and named arguments, with a `Place` for every tensor and float.
        shape: the template, by value where that is possible and else by identity: calls with equal ones differ in
            tensors and floats alone.
        names: of the tensors, as errors show them.
    """

    template: tuple[Args, Kwargs]
    shape: Hashable
    names: tuple[str, ...]
    tensors: tuple[Foreign, ...]
    floats: tuple[float, ...]

    def of(self, tensors: Sequence[object], floats: Sequence[float]) -> Call:
        """The same call of other tensors and floats."""
        return replace(self, tensors=tuple(tensors), floats=tuple(floats))

    def arguments(self) -> tuple[Args, Kwargs]:
        """The arguments, put together again."""

        def leaf(value: object, _: str) -> object:
            if not isinstance(value, Place):
                return value
            return self.floats[value.number] if value.floats else self.tensors[value.number]

        args, kwargs = self.template
        return map_leaves(args, leaf), {name: map_leaves(value, leaf) for name, value in kwargs.items()}


def take_apart(
    args: Args, kwargs: Kwargs, parameters: Sequence[str], tensor: type, floating: tuple[type, ...],
    integers: tuple[type[SupportsInt], ...],
) -> Call:
    """Take the arguments of a call apart.

    Args:
        parameters: names of the positional arguments.
        tensor: the type of tensors.
        floating: types of floats.
        integers: types of integers that have to become plain ones.
    """
    tensors: list[Foreign] = []
    floats: list[float] = []
    names: list[str] = []

    def leaf(value: Foreign, name: str) -> object:
        if isinstance(value, tensor):
            tensors.append(value)
            names.append(name)
            return Place(len(tensors) - 1, False)
        if type(value) in floating:
            floats.append(value)
            return Place(len(floats) - 1, True)
        return int(value) if isinstance(value, integers) else value

    labels = [*parameters[: len(args)], *(f"argument {i}" for i in range(len(parameters), len(args)))]
    template = (
        tuple(map_leaves(value, leaf, name) for value, name in zip(args, labels, strict=True)),
        {name: map_leaves(value, leaf, name) for name, value in kwargs.items()},
    )
    return Call(template, _spelled(list(template)), tuple(names), tuple(tensors), tuple(floats))


def _spelled(value: Foreign) -> Hashable:
    """A template to compare; what has no value of its own counts by identity: the template keeps it alive."""
    kind = type(value)
    if kind is Place:
        return kind, value.floats, value.number
    if isinstance(value, (tuple, list)):
        return kind, *map(_spelled, value)
    if isinstance(value, dict):
        return kind, *((type(k), k, _spelled(v)) for k, v in value.items())
    if kind in (bool, int, str, bytes, type(None)):
        return kind, value
    if is_record(value):
        return kind, *((k, _spelled(v)) for k, v in vars(value).items())
    return kind, id(value)
