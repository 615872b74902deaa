"""Notebooks: the tutorial runs, objects show short and as HTML, and words of users stay text in it."""

from __future__ import annotations

import ast
import html
import json
import sys
import webbrowser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotune
import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

TUTORIAL = Path(__file__).parents[2] / "docs" / "first-kernel.ipynb"


@nki.jit
def doubled(x, tile=64):
    """Twice <b>x</b>."""
    out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
    for start in range(0, x.shape[1], tile):
        part = nl.load(x[:, start : start + tile])
        nisa.tensor_scalar(part, part, nl.multiply, 2.0, name="<script>")
        nl.store(out[:, start : start + tile], part)
    return out


X = np.ones((32, 128), np.float32)


def test_tutorial_as_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell, the last expression of which is what a notebook shows."""
    names: dict[str, Any] = {"__name__": "tutorial"}
    shown = []
    for number, cell in enumerate(json.loads(TUTORIAL.read_text())["cells"]):
        if cell["cell_type"] != "code":
            continue
        body = ast.parse("".join(cell["source"]))
        last = ast.Expression(body.body.pop().value) if isinstance(body.body[-1], ast.Expr) else None
        exec(compile(body, f"<cell {number}>", "exec"), names)
        shown.append(None if last is None else eval(compile(last, f"<cell {number}>", "eval"), names))
    assert [hasattr(value, "_repr_html_") for value in shown if value is not None].count(True) == 3
    printed = capsys.readouterr().out
    assert printed.startswith("the first difference") and "at most 128" in printed


def test_tutorial_in_jupyter() -> None:
    nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
    nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    notebook = nbclient.NotebookClient(nbformat.read(TUTORIAL, 4), timeout=120, kernel_name="python3").execute()
    kinds = [kind for cell in notebook.cells for out in cell.get("outputs", ()) for kind in out.get("data", ())]
    assert kinds.count("text/html") == 3


def test_representations_are_short_and_escaped() -> None:
    profile = nki.profile(doubled, X)
    result = autotune.search(doubled, [X], space={"tile": [32, 64]}, objective="trn2")
    for found in (doubled, doubled.trace(X), doubled.compile(X), profile, result):
        assert len(repr(found)) < 200 and "\n" not in repr(found)
    for found in (doubled, doubled.trace(X), profile, result):
        page = found._repr_html_()
        assert page.startswith(("<pre", "<details")) and "<script>" not in page and "<b>" not in page
    assert html.escape("<script>") in doubled.trace(X)._repr_html_()


def test_reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = nki.profile(doubled, X)
    profile.html(tmp_path / "report.html")
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # as in no notebook
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or True)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    profile.show()
    (shown,) = tmp_path.glob("*-doubled.html")
    assert opened == [shown.as_uri()] and shown.read_text() == (tmp_path / "report.html").read_text()


def test_kernel_without_a_file_on_the_cpu() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "nl": nl, "nki": nki}
    source = "def kernel(x, tile=32):\n    out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)\n"
    source += "    nl.store(out, nl.load(x))\n    return out\n"
    exec(compile(source, "/tmp/ipykernel_1/1.py", "exec"), names)
    protocol = autotune.Protocol(warmup_seconds=0.02, seconds=0.05, rounds=7, final_seconds=0.5)
    kernel = nki.jit(names["kernel"])
    found = autotune.search(kernel, [X], space={"tile": [32, 64]}, objective="cpu", protocol=protocol)
    assert (found.label, found.best.value > 0) == ("cpu-measured", True)
