"""Arrays of other libraries in warm launches: what they look like, where their memory is, results of their kind."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import NamedTuple

import numpy as np

from nkilite.runtime.results import Result


class Library(NamedTuple):
    """A library whose arrays kernels take.

    Attributes:
        look: dtype and shape of an array; None if a call with it takes a closer look, because the library has to see
            it, or the array has no memory here.
        address: of the memory of an array that was looked at; a negative number unless it is contiguous.
        memory: the same memory as a NumPy array, whose elements may have another dtype of the same size.
        maker: given shape and dtype, what makes new arrays; None if the library has no such dtype.
        view: what a kernel returns of an array, all of it or a part.
    """

    look: Callable[[object], Hashable | None]
    address: Callable[[object], int]
    memory: Callable[[object], np.ndarray]
    maker: Callable[[tuple[int, ...], str], Callable[[], object] | None]
    view: Callable[[object, Result], object]


#: By the exact type of their arrays, libraries that have been imported.
libraries: dict[type, Library] = {}
