"""Drawings: what steps touch, pictures of values, the page in a browser, the command."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.beta1 as beta1
import nkilite.beta1.language as old
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.drawing import draw
from nkilite.drawing.pictures import UNWRITTEN
from nkilite.drawing.steps import OneCoreDrawn

X = np.arange(128 * 64, dtype=np.float32).reshape(128, 64)


@nki.jit
def halves(x):
    tile = nl.ndarray((128, 64), dtype=nl.float32, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile[:, 0:32], src=x[:, 32:64])
    nisa.tensor_scalar(dst=tile[64:128, 0:32], data=tile[64:128, 0:32], op0=nl.multiply, operand0=0.5)
    nisa.dma_copy(dst=x[:, 0:32], src=tile[:, 0:32])


def blocks(touched: Any, rows: int, columns: int) -> np.ndarray:
    bits = np.frombuffer(base64.b64decode(touched.blocks), np.uint8)
    return np.unpackbits(bits)[: rows * columns].reshape(rows, columns).astype(bool)


def levels(touched: Any, rows: int, columns: int) -> np.ndarray:
    return np.frombuffer(base64.b64decode(touched.picture.levels), np.uint8).reshape(rows, columns)


def data_of(page: str) -> dict[str, Any]:
    return json.loads(re.search(r"const D = (.*);\n", page)[1])


def test_what_steps_touch_and_what_is_there() -> None:
    x = X.copy()
    watched = draw(halves, x).watched
    np.testing.assert_array_equal(x, X)
    load, scale, store = watched.steps
    assert [s.instruction for s in watched.steps] == ["dma_copy", "tensor_scalar", "dma_copy"]
    assert (scale.engine, dict(scale.attributes)["operand0"]) == ("vector", "0.5")
    assert "nisa.tensor_scalar" in scale.location.source
    assert [(t.operand, t.reads, t.writes) for t in scale.touched] == [("dst", False, True), ("data", True, False)]
    dst, src = load.touched
    assert blocks(dst, 64, 64)[:, :32].all()
    assert not blocks(dst, 64, 64)[:, 32:].any()
    assert not blocks(src, 64, 64)[:, :32].any()
    assert (levels(dst, 64, 64)[:, 32:] == UNWRITTEN).all()
    means = X[:, 32:].reshape(64, 2, 32).mean(axis=1)
    assert (dst.picture.low, dst.picture.high) == (means.min(), means.max())
    found = levels(dst, 64, 64)[:, :32] / (UNWRITTEN - 1) * (means.max() - means.min()) + means.min()
    np.testing.assert_allclose(found, means, atol=(means.max() - means.min()) / UNWRITTEN)
    changed = scale.touched[0]
    assert not blocks(changed, 64, 64)[:32].any()
    assert blocks(changed, 64, 64)[32:, :32].all()
    assert changed.picture.high == means.max() / 2
    assert store.touched[0].buffer == src.buffer


def test_other_dtypes_of_views_and_single_rows() -> None:
    @nki.jit
    def kernel(x):
        tile = nl.ndarray((2, 8), dtype=nl.float32, buffer=nl.sbuf)
        nisa.memset(tile.view(nl.bfloat16)[0:2, 0:4], 1.0)
        nisa.memset(tile[0:1, 7:8], 1.0)
        nisa.dma_copy(dst=x[0, 0:2, 0:8], src=tile)

    watched = draw(kernel, np.zeros((2, 2, 8), np.float32)).watched
    narrow, one, whole = (s.touched[0] for s in watched.steps)
    assert blocks(narrow, 2, 8).sum(axis=1).tolist() == [2, 2]
    assert np.argwhere(blocks(one, 2, 8)).tolist() == [[0, 7]]
    assert blocks(whole, 4, 8).sum(axis=1).tolist() == [8, 8, 0, 0]  # HBM: rows of the last dimension


def test_loops_and_limits() -> None:
    @nki.jit
    def kernel(x):
        tile = nl.load(x)

        def body(i):
            nisa.tensor_scalar(tile, tile, nl.add, 1.0)

        nl.fori_loop(0, 5, body)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    steps = draw(kernel, X).watched.steps
    assert [s.instruction for s in steps].count("tensor_scalar") == 5
    few = draw(kernel, X, steps=2)
    assert len(few.watched.steps) == 2
    assert few.watched.executed == len(steps)
    assert "2 of" in repr(few)


def test_results_that_are_written_directly() -> None:
    @beta1.jit
    def kernel(x):
        out = old.ndarray(x.shape, dtype=x.dtype, buffer=old.shared_hbm)
        tile = old.ndarray((old.par_dim(128), 64), dtype=x.dtype, buffer=old.sbuf)
        tile[...] = old.add(old.load(x), 1.0)
        old.store(out, tile)
        return out

    watched = draw(kernel, X).watched
    load, add, store = watched.steps
    assert add.touched[0].buffer == store.touched[1].buffer != load.touched[0].buffer
    assert add.touched[0].picture == store.touched[0].picture
    assert watched.executed == kernel.trace(X).count


def test_failures_are_drawn_up_to_there() -> None:
    @nki.jit
    def kernel(x):
        tile = nl.load(x)
        nisa.tensor_copy(dst=tile, src=tile[:, 0:32])

    drawing = draw(kernel, X)
    assert len(drawing.watched.steps) == 1
    assert "nisa.tensor_copy" in data_of(drawing.page())["failure"]
    with pytest.raises(nki.errors.NkiError):
        draw(nki.jit(lambda x: nl.ndarray((256, 1), nl.float32, nl.sbuf)), X)  # before any instruction
    with pytest.raises(OneCoreDrawn, match="2 cores"):
        draw(halves[2], X)


def test_the_page_is_one_file_and_text_is_text() -> None:
    source = "def kernel(x, note='</script><b>'):\n    halves.function(x)  # </script>\n"
    namespace: dict[str, Any] = {"halves": halves}
    exec(compile(source, "cell", "exec"), namespace)
    page = draw(namespace["kernel"], X.copy()).page()
    assert page.count("</script>") == 1
    assert not re.search(r"<(link|img|iframe)|<script |url\(|https?://", page.partition("const D")[0])
    data = data_of(page)
    assert "</script>" in data["signature"]
    assert len(data["steps"]) == 3


CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_in_a_browser(tmp_path: Path) -> None:
    draw(halves, X.copy()).html(tmp_path / "page.html")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=2000", "--dump-dom", f"{(tmp_path / 'page.html').as_uri()}#2",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    assert ">2 / 3</output>" in dom
    assert "data is read" in dom
    assert "dst is written" in dom
    assert re.search(r'class="used now"[^>]*><i>\d+</i> *nisa.tensor_scalar', dom)
    assert dom.count("<canvas") == 2  # the tile, and faintly x


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import nki\nimport nki.language as nl\n\n@nki.jit\ndef kernel(x):\n    return nl.store(x, nl.load(x))\n"
    )
    command = [sys.executable, "-m", "nkilite", "draw", "mine.py:kernel", "4x8:float32"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=True)
    assert done.stdout == "written: kernel.html (2 of 2 instructions)\n"
    assert "nki.language" in (tmp_path / "kernel.html").read_text()
