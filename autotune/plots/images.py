"""PNG files per context: optuna's matplotlib pictures and a heat map."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autotune.errors import MissingLibrary
from autotune.figures import Figure
from autotune.plots.data import Grid, Tuned
from nkilite.plain import plain

try:
    import matplotlib.pyplot as plt
    from matplotlib.text import Text

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from optuna.visualization import matplotlib as visualization
except ImportError as error:
    raise MissingLibrary(library="matplotlib", problem=str(error)) from None

DPI = 110
SIZE = (8.0, 5.0)
ANNOTATED = 20  # values along an axis up to which cells bear their figure


def write(tuned: Tuned, stem: Path, axes: Sequence[str]) -> list[Path]:
    """One file per picture, named after the stem, the picture and, of several, the figure."""
    written: list[Path] = []

    def save(picture: Any, name: str) -> None:
        shown = picture.figure
        shown.suptitle(tuned.title, fontsize=9)
        for text in shown.findobj(Text):  # a dollar sign begins no formula
            text.set_parse_math(False)
            text.set_text(plain(text.get_text()))
        shown.set_size_inches(*SIZE)
        path = stem.with_name(f"{stem.name}-{name}.png")
        shown.savefig(path, dpi=DPI, bbox_inches="tight")
        plt.close(shown)
        written.append(path)

    with warnings.catch_warnings(), plt.style.context("default"):  # optuna sets a style for good
        warnings.simplefilter("ignore")  # optuna's, about its own experimental parts
        for figure in tuned.figures:
            of = f"-{figure.name}" if len(tuned.figures) > 1 else ""
            for name, picture in _pictures(tuned, figure, axes):
                save(picture, name + of)
        if tuned.fronts is not None:
            figures, study = tuned.fronts
            picture = visualization.plot_pareto_front(study, target_names=[f.title for f in figures])
            picture.set_title("Pareto front")
            save(picture, "pareto")
    return written


def _pictures(tuned: Tuned, figure: Figure, axes: Sequence[str]) -> list[tuple[str, Any]]:
    study, name = tuned.study(figure), figure.title
    history = visualization.plot_optimization_history(study, target_name=name)
    history.set_title("Optimization history")
    history.set_xlabel("accepted configuration, in order")
    history.legend(loc="upper right")
    found = [("history", history)]
    if tuned.everywhere:
        parallel = visualization.plot_parallel_coordinate(study, params=tuned.everywhere, target_name=name)
        parallel.set_title("Parallel coordinates")
        importance = visualization.plot_param_importances(study, params=tuned.everywhere, target_name=name)
        importance.set_title("", loc="left")
        importance.set_title("Importance of parameters")
        importance.set_xlabel(f"importance for {name}")
        found += [("parallel", parallel), ("importance", importance)]
    grid = tuned.grid(figure, axes)
    return found if grid is None else [*found, ("heatmap", _heat_map(grid, figure))]


def _heat_map(grid: Grid, figure: Figure) -> Any:
    _, axes = plt.subplots()
    cells = [[float("nan") if v is None else v for v in row] for row in grid.cells]
    known = [v for row in grid.cells for v in row if v is not None]
    middle = (min(known) + max(known)) / 2
    image = axes.imshow(cells, cmap="viridis_r", aspect="auto", origin="lower")
    axes.grid(visible=False)
    axes.set_xticks(range(len(grid.columns)), [str(v) for v in grid.columns])
    axes.set_yticks(range(len(grid.rows)), [str(v) for v in grid.rows] if grid.y else [""])
    axes.set_xlabel(grid.x)
    axes.set_ylabel(grid.y)
    if max(len(grid.columns), len(grid.rows)) <= ANNOTATED:
        for y, row in enumerate(grid.cells):
            for x, value in enumerate(row):
                if value is not None:
                    color = "white" if value > middle else "black"  # the map goes from light to dark
                    axes.text(x, y, f"{value:.4g}", ha="center", va="center", color=color, size=8)
    axes.set_title("Best over all other parameters; empty where nothing was accepted", fontsize=10)
    axes.figure.colorbar(image, ax=axes, label=figure.title)
    return axes
