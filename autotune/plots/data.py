"""The trials of one context in the form that plots need: an optuna study, and grids of two parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState, create_trial

from autotune.context import Context
from autotune.database import Database
from autotune.errors import InvalidPlot
from autotune.figures import MODELLED, SBUF, Figure, figure_named
from autotune.outcome import Rejections
from autotune.space import Configuration
from nkilite.later import later

if TYPE_CHECKING:
    from optuna import importance
else:
    importance = later("optuna.importance")  # where there is scikit-learn, it imports that: seconds

PARETO_FIGURES = (2, 3)


@dataclass(frozen=True)
class Grid:
    """The best value for each pair of two parameters' values, over all others; None where nothing was accepted."""

    x: str
    y: str
    columns: tuple[Any, ...]
    rows: tuple[Any, ...]
    cells: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True)
class Tuned:
    """The trials of a context, in the order they were finished in.

    Attributes:
        figures: those of the objective.
        rows: accepted configurations with their figures.
        peaks: SBUF peaks of the rows, where a modelled latency alone was minimized.
    """

    context: Context
    figures: tuple[Figure, ...]
    rows: tuple[tuple[Configuration, tuple[float, ...]], ...]
    peaks: tuple[float, ...]
    rejections: Rejections

    @classmethod
    def of(cls, database: Database, context: Context) -> Tuned:
        """What the database holds of a context."""
        figures = tuple(map(figure_named, context.objective.split(",")))
        trials = [t for t in database.trials.values() if t.context.id == context.id]
        accepted = [t for t in trials if t.outcome.value is not None]
        rows = tuple(
            (t.configuration, (t.outcome.value or 0.0, *(t.outcome.figures[f.key] for f in figures[1:])))
            for t in accepted
        )
        peaks: tuple[float, ...] = ()
        if len(figures) == 1 and figures[0].label == MODELLED and figures[0] is not SBUF:
            peaks = tuple(t.outcome.figures[SBUF.key] for t in accepted if SBUF.key in t.outcome.figures)
        return cls(context, figures, rows, peaks, Rejections.of(t.outcome for t in trials))

    @property
    def title(self) -> str:
        """The kernel and the shapes it was tuned on."""
        arrays = (a for a in self.context.arguments.values() if a[0] == "array")
        shapes = " ".join(f"{'x'.join(map(str, shape))}:{dtype}" for _, shape, dtype in arrays)
        return f"{self.context.kernel} on {shapes}"

    @cached_property
    def varied(self) -> dict[str, tuple[Any, ...]]:
        """Parameters with more than one value, and their values in order."""
        values: dict[str, dict[Any, None]] = {}
        for configuration, _ in self.rows:
            for name, value in configuration.items():
                values.setdefault(name, {})[value] = None
        return {n: tuple(sorted(v, key=_order)) for n, v in values.items() if len(v) > 1}

    @cached_property
    def everywhere(self) -> list[str]:
        """Varied parameters that every configuration has."""
        return [n for n in self.varied if all(n in c for c, _ in self.rows)]

    def study(self, figure: Figure) -> optuna.Study:
        """An optuna study of one figure."""
        index = self.figures.index(figure)
        return self._study([(c, (values[index],)) for c, values in self.rows])

    @property
    def fronts(self) -> tuple[tuple[Figure, ...], optuna.Study] | None:
        """The figures a Pareto front is drawn of and their study; None if there are too few or too many."""
        figures, rows = self.figures, list(self.rows)
        if len(self.peaks) == len(rows):
            figures = (*figures, SBUF)
            rows = [(c, (*values, peak)) for (c, values), peak in zip(rows, self.peaks, strict=True)]
        return (figures, self._study(rows)) if len(figures) in PARETO_FIGURES else None

    def _study(self, rows: Sequence[tuple[Configuration, tuple[float, ...]]]) -> optuna.Study:
        level = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(directions=["minimize"] * len(rows[0][1]))
        optuna.logging.set_verbosity(level)
        # Tile sizes are far from evenly spaced: as categories, axes bear the values themselves.
        distributions = {n: CategoricalDistribution(v) for n, v in self.varied.items()}
        for configuration, values in rows:
            held = {n: v for n, v in configuration.items() if n in distributions}
            study.add_trial(
                create_trial(
                    params=held, distributions={n: distributions[n] for n in held}, values=list(values),
                    state=TrialState.COMPLETE,
                )
            )
        return study

    def importances(self, figure: Figure) -> dict[str, float]:
        """The share of each parameter in what makes configurations good, the largest first."""
        if not self.everywhere:
            return {}
        return importance.get_param_importances(self.study(figure), params=self.everywhere)

    def grid(self, figure: Figure, axes: Sequence[str] = ()) -> Grid | None:
        """The heat map of a figure over two parameters, the most important ones by default; None if none varies.

        Raises:
            InvalidPlot: `axes` are not one or two varied parameters.
        """
        names = list(axes) or list(self.importances(figure))[:2]
        for name in names:
            if name not in self.varied:
                raise InvalidPlot(problem=f"{name!r} does not vary in {self.title}; {', '.join(self.varied)} do")
        if len(names) > 2:
            raise InvalidPlot(problem=f"a heat map has two axes, not {len(names)}")
        if not names:
            return None
        x, y = names[0], names[1] if len(names) == 2 else ""
        columns, rows = self.varied[x], self.varied.get(y, (None,))
        best: dict[tuple[Any, Any], float] = {}
        index = self.figures.index(figure)
        for configuration, values in self.rows:
            if x in configuration and (not y or y in configuration):
                at = configuration[x], configuration.get(y)
                best[at] = min(values[index], best.get(at, values[index]))
        return Grid(x, y, columns, rows, tuple(tuple(best.get((c, r)) for c in columns) for r in rows))


def _order(value: Any) -> tuple[bool, Any]:
    """Numbers by size before anything else by its text."""
    number = isinstance(value, (int, float))
    return not number, value if number else str(value)
