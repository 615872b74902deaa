"""Pictures of what a database holds, after the fact: one HTML page and a set of PNG files per tuned context.

For every figure of the objective: the history of the search, parallel coordinates, the importance of parameters, and a
heat map of two parameters; and where there are two or three figures, their Pareto front.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from autotune.context import Context
from autotune.database import Database
from autotune.errors import InvalidPlot, MissingLibrary, NothingToPlot
from autotune.plots.data import Tuned
from nkilite.later import later

if TYPE_CHECKING:  # extras
    from autotune.plots import images as _images
    from autotune.plots import page as _page
else:
    _images, _page = later("autotune.plots.images"), later("autotune.plots.page")


def _html(tuned: Tuned, stem: Path, axes: Sequence[str]) -> list[Path]:
    return _page.write(tuned, stem, axes)


def _png(tuned: Tuned, stem: Path, axes: Sequence[str]) -> list[Path]:
    return _images.write(tuned, stem, axes)


FORMATS: dict[str, Callable[[Tuned, Path, Sequence[str]], list[Path]]] = {"html": _html, "png": _png}


_LIBRARIES = {"html": "plotly", "png": "matplotlib"}


def require(formats: Iterable[str] = tuple(FORMATS)) -> None:
    """Check, before a search, that what it is to end with can be drawn.

    Raises:
        InvalidPlot, MissingLibrary.
    """
    for name in formats:
        if name not in FORMATS:
            raise InvalidPlot(problem=f"format {name!r} is not one of {', '.join(FORMATS)}")
        if find_spec(_LIBRARIES[name]) is None:
            raise MissingLibrary(library=_LIBRARIES[name], problem="it is not installed")


def write(
    database: Database | str | os.PathLike[str],
    directory: str | os.PathLike[str],
    *,
    kernel: str = "",
    contexts: Iterable[Context] | None = None,
    formats: Sequence[str] = tuple(FORMATS),
    axes: Sequence[str] = (),
) -> list[Path]:
    """Draw what a database holds.

    Args:
        database: a Database or the path of one.
        directory: where files go; made if need be.
        kernel: part of a kernel's name; all by default.
        contexts: these alone, instead of all of `kernel`.
        formats: "html" (one page per context that needs nothing else) and "png" (one file per picture).
        axes: the two parameters of the heat map; the most important ones by default.

    Returns:
        The files written.

    Raises:
        InvalidPlot: an unknown format, or axes that are not parameters.
        NothingToPlot: no configuration of the kernel was accepted.
        MissingLibrary: plotly or matplotlib is not installed.
    """
    require(formats)
    held = database if isinstance(database, Database) else Database(database)
    wanted = held.of_kernel(kernel) if contexts is None else contexts
    found = [t for c in wanted if (t := Tuned.of(held, c)).rows]
    if not found:
        raise NothingToPlot(kernel=kernel or "any kernel", path=held.path)
    target = Path(directory)
    target.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    for tuned in found:
        stem = target / _stem(tuned, found)
        for name in formats:
            written += FORMATS[name](tuned, stem, axes)
    return written


def _stem(tuned: Tuned, others: Sequence[Tuned]) -> str:
    """A file name without suffix, with the context's id where shapes do not tell two apart."""
    stem = _readable(tuned)
    return stem if sum(_readable(o) == stem for o in others) == 1 else f"{stem}-{tuned.context.id}"


def _readable(tuned: Tuned) -> str:
    context = tuned.context
    shapes = (a[1] for a in context.arguments.values() if a[0] == "array")
    parts = [context.kernel.rpartition(":")[2], *("x".join(map(str, s)) for s in shapes), context.objective]
    return re.sub(r"[^\w.-]+", "-", "-".join(parts))
