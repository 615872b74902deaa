"""The figures a study can minimize: names, units, where they come from, how those of several workloads combine."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import nkilite as nki
from autotune.errors import UnknownObjective

CPU_MEASURED = "cpu-measured"
MODELLED = "modelled"


def geometric_mean(values: Sequence[float]) -> float:
    """exp of the mean logarithm; of a single value exactly that value."""
    return values[0] if len(values) == 1 else math.exp(sum(map(math.log, values)) / len(values))


@dataclass(frozen=True)
class Figure:
    """One quantity to minimize.

    Attributes:
        name: as `--objective` has it.
        quantity, unit: what it is and in which unit.
        label: "modelled" or "cpu-measured".
        key: what it is called among the figures of an outcome.
        combine: the figure of a configuration from those of its workloads.
    """

    name: str
    quantity: str
    unit: str
    label: str
    key: str
    combine: Callable[[Sequence[float]], float] = geometric_mean

    @property
    def title(self) -> str:
        """As axes have it: what, where, how it came about, unit."""
        return f"{self.heading} ({self.unit})" if self.unit else self.heading

    @property
    def heading(self) -> str:
        """As tables have it, whose cells have units of their own."""
        return f"{self.quantity}, {self.label}" if self.label else self.quantity


def _latency(chip: str) -> Figure:
    return Figure(chip, f"{chip} latency", "µs", MODELLED, chip)


CHIPS = nki.target_names()
CPU = Figure("cpu", "cpu latency", "µs", CPU_MEASURED, "cpu")
SBUF = Figure("sbuf", "SBUF peak per partition", "bytes", MODELLED, "sbuf_peak_bytes", max)
ERROR = Figure("error", "relative numerical error", "", CPU_MEASURED, "error", max)
FIGURES = {f.name: f for f in (*map(_latency, CHIPS), CPU, SBUF, ERROR)}


def figure_named(name: str) -> Figure:
    """The figure of that name; of an objective of the user's own, one of which nothing more is known."""
    if is_chip(name) and name not in FIGURES:
        return _latency(name)
    return FIGURES.get(name, Figure(name, name, "", "", name))


def is_chip(name: str) -> bool:
    """Whether a figure is the modelled latency on a chip: a target of nkilite, or a target file PATH.toml."""
    return name in CHIPS or name.endswith(".toml")


def figures_named(names: str | Sequence[str]) -> tuple[Figure, ...]:
    """The figures of ``"trn2,sbuf"`` or ``("trn2", "sbuf")``, in that order.

    Raises:
        UnknownObjective: a name is none of `FIGURES`, or stands twice.
    """
    listed = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    for index, name in enumerate(listed):
        if not (name in FIGURES or is_chip(name)) or name in listed[:index]:
            raise UnknownObjective(found=name, choices=", ".join(FIGURES))
    if not listed:
        raise UnknownObjective(found="", choices=", ".join(FIGURES))
    return tuple(map(figure_named, listed))
