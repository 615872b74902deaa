"""Text of users in everything that is printed or written: as it stands, and without control characters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from rich.panel import Panel
from rich.table import Table
from typer.testing import CliRunner

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from autotune.cli.command import app as autotune_app
from autotune.cli.present import Bar
from nkilite.__main__ import app as nkilite_app
from nkilite.cli.terminal import Terminal
from nkilite.errors import InvalidOperand
from nkilite.plain import plain
from nkilite.profiling.html import page
from nkilite.profiling.perfetto import trace_events
from nkilite.profiling.text import advice_text, comparison, line_table, wait_table

HOSTILE = (
    "[/x] [red]a[/red] [link=http://e.com]b[/link] :smile: </script><b>&amp; $x^2$ \x1b]0;t\x07\x1b[31m\u202e\ud800"
)
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]")

KERNEL = '''
import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl

def load(tiles, name):
    return nl.load(tiles[name])  # [/done] [red] \x1b[31m \x9b

@nki.jit
def kernel(x, MODE="[/a]"):
    if MODE == "[bold]":
        raise ValueError({hostile!r})
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = load({{"a": x}}, "a")
    nisa.activation(tile, nl.exp, tile)
    nl.store(out, tile)
    return out

'''


def test_every_way_a_string_gets_into_a_console() -> None:
    console = Terminal(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    table = Table("a", HOSTILE, title=HOSTILE, caption=HOSTILE)
    table.add_row(HOSTILE, HOSTILE)
    console.print(table, Panel(HOSTILE), HOSTILE)
    console.log(HOSTILE)
    console.rule(HOSTILE)
    with Bar(console, HOSTILE):
        pass
    text = console.export_text()
    assert not CONTROL.search(text), CONTROL.findall(text)
    assert text.count("[/x] [red]a[/red] [link=http://e.com]b[/link] :smile:") >= 6


@pytest.fixture
def folder(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "[b]").mkdir()
    (tmp_path / "kernels_of_text.py").write_text(KERNEL.format(hostile=HOSTILE), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(app, *arguments: str, status: int = 0) -> str:
    found = CliRunner().invoke(app, arguments)
    assert found.exit_code == status, (found.output, found.exception)
    assert not CONTROL.search(found.output), CONTROL.findall(found.output)
    return " ".join(re.sub(r"[│┃╇╈┏┓└┘]", " ", found.output).split())


def test_commands(folder: Path) -> None:
    pytest.importorskip("plotly", reason="plotly is not installed")
    spec = "kernels_of_text.py:kernel"
    search = ("run", spec, "--shapes", "16x8:float32", "--param", "MODE=[/a],[bold]", "-d", "[b]/db", "--plots", "[b]")
    out = said(autotune_app, *search)
    assert "MODE=[/a]" in out
    assert "[/x] [red]a[/red]" in out
    lines = (folder / "[b]" / "db").read_text().replace("kernels_of_text:kernel", json.dumps(HOSTILE)[1:-1])
    (folder / "[b]" / "db").write_text(lines)
    assert "[/x] [red]a[/red]" in said(autotune_app, "show", "-d", "[b]/db")
    assert "[/x] [red]a[/red]" in said(autotune_app, "compare", "[b]/db", "[b]/db")
    assert "[b]/export" in said(autotune_app, "export", "[b]/export", "-d", "[b]/db")
    assert "[b]/export" in said(autotune_app, "import", "[b]/export", "-d", "[b]/db2")
    pictures = said(autotune_app, "plot", "[b]/db", "--out", "[b]/$x^2$")
    assert "[b]/$x^2$" in pictures
    for file in (folder / "[b]").rglob("*.html"):
        body = file.read_text(encoding="utf-8").partition("<h1>")[2]
        assert "<b>" not in body
        assert "</script><b" not in body
        assert not CONTROL.search(body)
    files = ("--html", "[b]/p.html", "--trace", "[b]/t.json")
    out = said(nkilite_app, "profile", spec, "--shapes", "16x8:float32", *files)
    assert "tiles[name])" in out
    assert "[/done]" in out
    assert "[b]/p.html" in out
    said(nkilite_app, "compile", spec, "16x8:float32", "--dump", "trace")
    said(nkilite_app, "compile", spec, "16x8:float32", "--time")


def test_reports_of_a_kernel_with_a_hostile_name() -> None:
    def kernel(x):
        tile = nl.load(x)
        nisa.activation(tile, nl.exp, tile, name=HOSTILE)
        nl.store(x, tile)
        return x

    kernel.__name__ = kernel.__qualname__ = HOSTILE
    found = nki.profile(nki.jit(kernel), np.ones((16, 8), np.float32))
    html = page(found)
    assert "</script><b>" not in html
    assert not CONTROL.search(html)
    assert trace_events(found)
    console = Terminal(width=400, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(comparison([found]), line_table(found), wait_table(found), advice_text(found))
    assert not CONTROL.search(console.export_text())


def test_messages_are_plain() -> None:
    error = InvalidOperand(instruction="nisa.memset", operand=HOSTILE, found=HOSTILE, expected="x")
    assert not CONTROL.search(str(error))
    assert "[/x] [red]a[/red]" in str(error)
    assert plain("a\tb\nü€") == "a\tb\nü€"
    assert plain("\x1b\r\x00\ud800\u2028") == "\\x1b\\r\\x00\\ud800\\u2028"
