"""nki.typing: annotations for the tensor parameters of kernels.

`X: nt.tensor[128, 512]` documents a shape; nkilite does not enforce annotations. Type checkers take `nt.tensor` for
anything, and refuse numbers between brackets. Source: `nki.typing` in the public migration guide.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from nkilite.trace.tensor import NkiTensor

__all__ = ["TensorAnnotation", "mutable_tensor", "tensor"]


class TensorAnnotation:
    """`tensor[shape]`: a tensor type, the shape it is meant to have, and whether the kernel writes it."""

    def __init__(self, name: str, mutable: bool, shape: tuple[object, ...] | None = None) -> None:
        self.name, self.mutable, self.shape = name, mutable, shape

    def __getitem__(self, shape: object) -> TensorAnnotation:
        return TensorAnnotation(self.name, self.mutable, shape if isinstance(shape, tuple) else (shape,))

    def __instancecheck__(self, value: object) -> bool:
        return isinstance(value, NkiTensor)

    def __or__(self, other: object) -> Any:
        return NkiTensor | other

    __ror__ = __or__

    def __call__(self, *_: Any, **__: Any) -> Any:
        raise TypeError(f"nki.typing.{self.name} is an annotation; tensors are made with nl.ndarray")

    def __repr__(self) -> str:
        return f"nt.{self.name}" + (f"[{', '.join(map(str, self.shape))}]" if self.shape is not None else "")


if TYPE_CHECKING:  # callers give arrays, kernels see tensors
    tensor: TypeAlias = Any
    mutable_tensor: TypeAlias = Any
else:
    tensor = TensorAnnotation("tensor", mutable=False)
    mutable_tensor = TensorAnnotation("mutable_tensor", mutable=True)
