"""Stochastic rounding while a kernel is simulated: the same bits as in its compiled program."""

from __future__ import annotations

import numpy as np

from nkilite.dtypes import cast, float32
from nkilite.ir.definition import Control
from nkilite.ir.program import Signature
from nkilite.ir.rounding import Rounded, rounded
from nkilite.rounding import Sites, random_bits, round_to
from nkilite.trace import storage
from nkilite.trace.tensor import NkiTensor


class Rounder:
    """Rounds what instructions of one core write.

    Attributes:
        site: key of the last instruction.
    """

    def __init__(self, state: NkiTensor, core: int) -> None:
        """`state` are the engines' registers for it."""
        self._state = storage.array(state)
        self._sites = Sites(core)
        self._known: dict[int, tuple[Rounded | None, Signature]] = {}
        self.site = 0

    def of(self, signature: Signature) -> tuple[tuple[str, ...], Signature]:
        """The operands that the next instruction rounds, and the call that leaves them in float32."""
        self.site = self._sites.next()
        rounds, wide = self._rounded(signature)
        return ((), signature) if rounds is None else (rounds.names, wide)

    def _rounded(self, signature: Signature) -> tuple[Rounded | None, Signature]:
        found = self._known.get(id(signature))
        if found is None:
            rounds = rounded(signature)
            wide = signature
            if rounds is not None:
                wide = Signature(-1, signature.definition, rounds.wide, signature.target, ())
            found = self._known[id(signature)] = rounds, wide
        return found

    def round(self, tensor: NkiTensor, values: np.ndarray) -> np.ndarray:
        """What the last instruction leaves in a tensor."""
        single = np.broadcast_to(_shaped(cast(values, float32), tensor.shape), tensor.shape)
        return round_to(single, tensor.dtype, random_bits(self._state, self.site, tensor.shape))

    def redirected(self, signature: Signature, tensor: NkiTensor, values: np.ndarray) -> np.ndarray:
        """What the last instruction would have left in another tensor, given what it left in float32."""
        rounds, _ = self._rounded(signature)
        return values if rounds is None else self.round(tensor, values)

    def follow(self, control: Control | None, follows: bool) -> None:
        """The last instruction began or ended a loop's body, and an iteration follows or not."""
        if control is None:
            return
        if control is Control.begin:
            if not follows:
                return
            self._sites.begin(self.site)
        elif follows:
            self._sites.again()
        else:
            self._sites.end()
            return
        self._state[:, :2] += self._state[:, 2:]


def _shaped(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return values.reshape(shape) if values.size == int(np.prod(shape)) else values
