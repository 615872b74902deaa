"""What to say about names nki.language does not have: close matches, or what replaced an old name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nkilite.errors import UnknownName

_BETA1 = {
    "arange": "index with slices and nl.ds instead of index tensors.",
    "atomic_rmw": "use nisa.dma_compute.",
    "fp32": "use nl.float32, and numpy.finfo(numpy.float32).min for its smallest value.",
    "loop_reduce": "accumulate into a tile in the loop.",
    "mgrid": "index with slices and nl.ds instead of index tensors.",
    "nc": "launch with kernel[n](...).",
    "par_dim": "dimension 0 of an on-chip tensor is the partition dimension; write the shape without it.",
    "spmd_dim": "launch with kernel[n](...).",
    "static_cast": "pass dtype=, or use nisa.tensor_copy into a tile of the wanted dtype.",
}


def unknown_name(name: str, known: Iterable[str]) -> UnknownName:
    """The error for `nl.<name>`."""
    if name in _BETA1:
        why = ": it belongs to the Beta-1 dialect of NKI"
        return UnknownName(module="nki.language", name=name, why=why, hint=_BETA1[name])
    close = [f"nl.{match}" for match in difflib.get_close_matches(name, list(known), n=3)]
    hint = f"did you mean {' or '.join(close)}?" if close else "see docs/compatibility.md for what runs."
    return UnknownName(module="nki.language", name=name, why="", hint=hint)
