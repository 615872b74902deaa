"""What to say about names nki.language does not have: typing errors, and names of older dialects."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from nkilite.errors import TracingError

_BETA1 = {
    "arange": "index with slices and nl.ds instead of index tensors",
    "mgrid": "index with slices and nl.ds instead of index tensors",
    "par_dim": "dimension 0 of an on-chip tensor is the partition dimension; write the shape without it",
    "static_cast": "pass dtype=, or nisa.tensor_copy into a tile of the wanted dtype",
    "loop_reduce": "accumulate into a tile in the loop",
    "spmd_dim": "launch with kernel[n](...)",
    "nc": "launch with kernel[n](...)",
    "device": "launch with kernel[n](...)",
    "atomic_rmw": "use nisa.dma_compute",
    "fp32": "use nl.float32, and numpy.finfo(numpy.float32).min for its smallest value",
}


class UnknownName(TracingError, AttributeError):
    """nki.language has no attribute of that name."""

    template = "nki.language has no attribute {name!r}{hint}."
    remedy = "{advice}"


def unknown_name(name: str, known: Iterable[str]) -> UnknownName:
    """The error for `nl.<name>`: close matches, or what replaced a name of the Beta-1 dialect."""
    if name in _BETA1:
        return UnknownName(
            name=name, hint=": it belongs to the Beta-1 dialect of NKI", advice=_BETA1[name] + "."
        )
    close = difflib.get_close_matches(name, list(known), n=3)
    advice = (
        f"did you mean {' or '.join('nl.' + c for c in close)}?" if close else "see docs/compatibility.md."
    )
    return UnknownName(name=name, hint="", advice=advice)
