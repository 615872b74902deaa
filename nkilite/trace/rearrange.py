"""`tensor.rearrange`: splitting, reordering and merging named dimensions, composed of the simple views."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

from nkilite.errors import InvalidView, describe
from nkilite.trace.view_arguments import is_int

if TYPE_CHECKING:
    from nkilite.trace.tensor import NkiTensor

Names = Sequence[str | tuple[str, ...]]


def rearrange(tensor: NkiTensor, source: Names, target: Names, sizes: Mapping[str, int]) -> NkiTensor:
    """The view of `tensor` that the patterns describe; for them see `NkiTensor.rearrange`.

    Raises:
        InvalidView: the names do not match the dimensions or each other, or a size is wrong.
        InvalidReshape: a group does not divide its dimension, or its merge is not contiguous.
    """
    for what, pattern in (("src_pattern", source), ("dst_pattern", target)):
        if not isinstance(pattern, (tuple, list)) or not all(_is_names(entry) for entry in pattern):
            _refuse(f"{what} is {describe(pattern)}", "write a tuple of names and of tuples of names.")
    if not isinstance(sizes, Mapping) or not all(is_int(size) for size in sizes.values()):
        _refuse(f"fixed_sizes is {describe(sizes)}", "pass a dict from names to ints.")
    if len(source) != tensor.ndim:
        _refuse(f"{len(source)} source names for {tensor.ndim} dimensions", "name every dimension.")
    view = tensor
    names: list[str] = []
    for entry in source:
        group = _group(entry)
        if len(group) > 1:
            view = view.reshape_dim(len(names), tuple(sizes.get(n, -1) for n in group))
        names.extend(group)
    for name, size in zip(names, view.shape, strict=True):
        if sizes.get(name, size) != size:
            _refuse(f"{name} is {size}, not {sizes[name]}", "correct fixed_sizes.")
    order = [name for entry in target for name in _group(entry)]
    if sorted(order) != sorted(names):
        _refuse(f"names {order} are not a permutation of {names}", "use every source name once.")
    view = view.permute(tuple(names.index(name) for name in order))
    for dim, entry in enumerate(target):
        if len(_group(entry)) > 1:
            view = view.flatten_dims(dim, dim + len(entry) - 1)
    return view


def _is_names(entry: object) -> bool:
    """Whether an entry of a pattern is a name or a group of names."""
    group = isinstance(entry, (tuple, list)) and len(entry) > 0 and all(isinstance(name, str) for name in entry)
    return group or isinstance(entry, str)


def _group(entry: str | tuple[str, ...]) -> tuple[str, ...]:
    return (entry,) if isinstance(entry, str) else tuple(entry)


def _refuse(reason: str, hint: str) -> NoReturn:
    raise InvalidView(operation="rearrange", reason=reason, hint=hint)
