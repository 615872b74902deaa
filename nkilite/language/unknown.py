"""What to say about names nki.language does not have."""

from __future__ import annotations

from collections.abc import Iterable

from nkilite.errors import UnknownName
from nkilite.suggest import unknown_name as _unknown_name

_BETA1 = {
    "arange": "index with slices and nl.ds instead of index tensors.",
    "atomic_rmw": "use nisa.dma_compute.",
    "fp32": "use nl.float32, and numpy.finfo(numpy.float32).min for its smallest value.",
    "loop_reduce": "accumulate into a tile in the loop.",
    "mgrid": "index with slices and nl.ds instead of index tensors.",
    "nc": "launch with kernel[n](...).",
    "spmd_dim": "launch with kernel[n](...).",
    "static_cast": "pass dtype=, or use nisa.tensor_copy into a tile of the wanted dtype.",
}


def unknown_name(name: str, known: Iterable[str]) -> UnknownName:
    """The error for `nl.<name>`."""
    return _unknown_name("nki.language", "nl", name, known, _BETA1)
