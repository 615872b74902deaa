"""Plots after the fact: self-contained pages, real pictures, labelled axes, the heat map's figures, mistakes."""

from __future__ import annotations

import re
import sys

import pytest

from autotune import Database, plots, search
from autotune.context import Context
from autotune.database import Trial
from autotune.errors import InvalidPlot, MissingLibrary, NothingToPlot
from autotune.figures import FIGURES
from autotune.outcome import Outcome, Reason
from autotune.plots.data import Tuned
from nkilite.later import later

PNG = b"\x89PNG\r\n"


def context(objective: str = "trn2", rows: int = 128) -> Context:
    return Context("m:k", {"x": ["array", [rows, 64], "float32"]}, objective, "trn2", "", "0.1.0")


@pytest.fixture
def database() -> Database:
    """k's latency is A + 10 * |B - 2| + C / 10, and A = 3 is refused."""
    held = Database(None)
    for a in (1, 2, 3, 4):
        for b in (1, 2, 4):
            for c in ("x", "y") if b > 1 else ("x",):
                configuration = {"A": a, "B": b, "C": c}
                value = a + 10 * abs(b - 2) + (c == "y") / 10
                outcome = Outcome(value=value, figures={"sbuf_peak_bytes": 1000.0 / a})
                if a == 3:
                    outcome = Outcome(reason=Reason.divisibility, detail="3 does not divide <64>")
                held.add(Trial(context(), configuration, outcome))
    return held


def test_page_needs_nothing_else(database, tmp_path) -> None:
    pytest.importorskip("plotly", reason="the plots extra is not installed")
    (path,) = plots.write(database, tmp_path / "new", formats=["html"])
    page = path.read_text()
    assert path.name == "k-128x64-trn2.html"
    assert "plotly.js v" in page[:2000]
    body = page[page.rindex("</script></head>") :]
    assert not re.search(r"<(script|link|img)[^>]+(src|href)=", body)
    titles = ("Optimization history", "Parallel coordinates", "Importance of parameters", "Heat map", "Pareto front")
    assert all(title in body for title in titles)
    assert "trn2 latency, modelled (µs)" in body
    assert "SBUF peak per partition, modelled (bytes)" in body
    assert "3 does not divide &lt;64&gt;" in body
    assert "15 accepted and 5 rejected" in body


def test_pictures(database, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    import matplotlib.pyplot as plt

    before = dict(plt.rcParams)
    paths = plots.write(database, tmp_path, formats=["png"])
    pictures = ["history", "parallel", "importance", "heatmap", "pareto"]
    assert [p.name for p in paths] == [f"k-128x64-trn2-{name}.png" for name in pictures]
    assert all(p.read_bytes().startswith(PNG) and p.stat().st_size > 5000 for p in paths)
    assert dict(plt.rcParams) == before
    assert plt.get_fignums() == []


def test_heat_map_holds_the_best_of_the_rest(database) -> None:
    tuned = Tuned.of(database, context())
    grid = tuned.grid(FIGURES["trn2"], ["A", "B"])
    assert (grid.columns, grid.rows) == ((1, 2, 4), (1, 2, 4))
    assert grid.cells == ((11, 12, 14), (1, 2, 4), (21, 22, 24))
    sparse = tuned.grid(FIGURES["trn2"], ["C", "B"])
    assert sparse.cells == ((11, None), (1, 1.1), (21, 21.1))
    first = tuned.grid(FIGURES["trn2"])
    assert (first.x, first.y) == tuple(tuned.importances(FIGURES["trn2"]))[:2]


def test_one_parameter_is_a_heat_map_of_one_row(kernel, x, tmp_path) -> None:
    database = Database(None)
    search(kernel, (x,), space={"CHUNK": [32, 64, 96]}, database=database)
    (context,) = database.of_kernel()
    tuned = Tuned.of(database, context)
    grid = tuned.grid(FIGURES["trn2"])
    assert (grid.x, grid.y, grid.columns, len(grid.cells)) == ("CHUNK", "", (32, 64, 96), 1)


def test_one_configuration_has_a_history_alone(tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    held = Database(None)
    held.add(Trial(context("cpu"), {"A": 1}, Outcome(value=3.0)))
    paths = plots.write(held, tmp_path, formats=["png"])
    assert [p.name for p in paths] == ["k-128x64-cpu-history.png"]


def test_several_figures_shapes_and_missing_parameters(kernel, x, tmp_path) -> None:
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    pytest.importorskip("plotly", reason="the plots extra is not installed")
    database = Database(None)
    search(kernel, (x,), objective=("trn1", "trn2", "sbuf"), space={"CHUNK": [32, 64, 96], "COPIES": [1, 2]},
           database=database)
    for held in (False, True):
        configuration = {"A": 1, "DEPTH": 2} if held else {"A": 2}
        database.add(Trial(context(rows=256), configuration, Outcome(value=1.0 + held)))
    paths = plots.write(database, tmp_path)
    names = {p.name for p in paths}
    assert {"scaled-128x192-trn1-trn2-sbuf.html", "scaled-128x192-trn1-trn2-sbuf-pareto.png",
            "scaled-128x192-trn1-trn2-sbuf-heatmap-sbuf.png", "k-256x64-trn2.html"} <= names
    assert [p.name for p in plots.write(database, tmp_path, kernel="m:k", formats=["html"])] == ["k-256x64-trn2.html"]


def test_mistakes(database, tmp_path) -> None:
    with pytest.raises(InvalidPlot, match="'svg' is not one of html, png"):
        plots.write(database, tmp_path, formats=["svg"])
    pytest.importorskip("plotly", reason="the plots extra is not installed")
    with pytest.raises(InvalidPlot, match="'D' does not vary.*A, B, C do"):
        plots.write(database, tmp_path, formats=["html"], axes=["D", "A"])
    with pytest.raises(NothingToPlot, match="other"):
        plots.write(database, tmp_path, kernel="other")


def test_missing_libraries_are_named(database, tmp_path, monkeypatch) -> None:
    for library, module, name in (("plotly", "page", "html"), ("matplotlib", "images", "png")):
        monkeypatch.delitem(sys.modules, f"autotune.plots.{module}", raising=False)
        monkeypatch.setattr(plots, f"_{module}", later(f"autotune.plots.{module}"))
        monkeypatch.setitem(sys.modules, f"{library}.pyplot" if library == "matplotlib" else library, None)
        with pytest.raises(MissingLibrary, match=rf"(?s)plots need {library}.*nkilite\[plots\]"):
            plots.write(database, tmp_path, formats=[name])
