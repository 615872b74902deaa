"""The command line, run in process: tables, exports, comparisons, mistakes."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import slow_subject
from typer.testing import CliRunner

from autotune.cli.command import app
from autotune.database import Database
from autotune.errors import InvalidDatabase, InvalidShapes, NothingLegal, UnknownObjective
from nkilite.errors import InvalidCall, NkiError

MATMUL = ["run", "kernels.matmul:matmul", "--shapes", "M=256,N=1024,K=512", "--dtype", "bfloat16"]


def invoke(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=True)
    if isinstance(result.exception, NkiError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def database(tmp_path):
    return str(tmp_path / "db.jsonl")


def test_fronts_plots_and_a_default_that_is_not_legal(database, tmp_path) -> None:
    pytest.importorskip("plotly", reason="the plots extra is not installed")
    pytest.importorskip("matplotlib", reason="the plots extra is not installed")
    command = ["run", "kernels.matmul:matmul", "--shapes", "M=256,N=512,K=256", "--objective", "trn2,sbuf"]
    shown = invoke(*command, "-d", database, "--param", "TILES_IN_BLOCK_M=1,2", "--param", "TILES_IN_BLOCK_K=1,2",
                   "--constraint", "TILES_IN_BLOCK_M < 3")
    assert "trn2 latency, modelled" in shown
    assert "SBUF peak per partition, modelled" in shown
    assert "on the Pareto front; chosen: the best in trn2" in shown
    assert "rejected: constraint" in shown  # the default
    pictures = tmp_path / "pictures"
    shown = invoke("plot", database, "--kernel", "matmul", "--out", str(pictures), "--format", "png")
    assert len(list(pictures.glob("*.png"))) == shown.count("written: ") == 9
    shown = invoke(*command, "-d", database, "--trials", "2", "--sampler", "random", "--plots", str(pictures / "again"),
                   "--param", "TILES_IN_BLOCK_M=1,2", "--param", "TILES_IN_BLOCK_K=1,2")
    assert len(list((pictures / "again").glob("*.html"))) == 1


@pytest.mark.parametrize("finished", [0, 4])
def test_ctrl_c_reports_and_keeps_what_was_found(database, finished) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "autotune", "run", f"{slow_subject.__file__}:slow", "--shapes", "16x8", "-d", database],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **({} if finished else {slow_subject.SLOW: "60"})},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore it
    )
    path, until = Path(database), time.monotonic() + 60
    while len(path.read_text().splitlines() if path.exists() else ()) < finished and time.monotonic() < until:
        time.sleep(0.005)
    if not finished:
        assert process.stdout is not None
        assert "slow" in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    kept = [t for t in Database(path).trials.values() if t.outcome.accepted]
    if finished:
        assert process.returncode == 0
        assert "interrupted; run again with --resume" in said
        accepted = int(re.search(r"(\d+) accepted", said)[1])
        assert accepted in (len(kept) - 1, len(kept))  # the last one may have been interrupted after it was kept
        assert "│ best " in said
    else:
        assert process.returncode == 130
        assert "before any configuration was accepted" in said


def test_run_show_export_compare_import(database, tmp_path) -> None:
    shown = invoke(*MATMUL, "-d", database, "--trials", "12", "--param", "TILES_IN_BLOCK_M=1,2,300",
                   "--param", "TILES_IN_BLOCK_K=1..6", "--constraint", "TILES_IN_BLOCK_K >= 5")
    assert "trn2, modelled" in shown
    assert "speed-up over the default" in shown
    assert "constraint" in shown
    assert "TILES_IN_BLOCK_K >= 5" in shown
    assert "kernels.matmul:matmul" in invoke("show", "-d", database)
    assert "kernels.matmul:matmul" not in invoke("show", "softmax", "-d", database)
    export, other = str(tmp_path / "best.json"), str(tmp_path / "other.jsonl")
    assert "1 configuration(s)" in invoke("export", export, "-d", database)
    assert "1 new configuration(s)" in invoke("import", export, "-d", other)
    assert "1.000" in invoke("compare", export, other)


def test_several_shapes_and_specs(database) -> None:
    shown = invoke("run", "kernels.softmax:softmax", "--shapes", "256x128:bf16", "--shapes", "512x64:bf16",
                   "-d", database, "--objective", "trn1")
    assert "256x128:bf16; 512x64:bf16: trn1, modelled" in shown
    assert len({c.id for c in Database(database).of_kernel("softmax")}) == 2


def test_resume(database) -> None:
    larger = ("M=4096,N=512,K=128" if a.startswith("M=") else a for a in MATMUL)  # where all values differ
    arguments = (*larger, "-d", database, "--param", "TILES_IN_BLOCK_M=1..30")
    invoke(*arguments, "--trials", "3")
    assert "3 known from the database" in invoke(*arguments, "--trials", "6", "--resume", "--seed", "5")
    assert len(Database(database)) == 6


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["run", "kernels.matmul:matmul", "--shapes", "M=256,Q=1"], InvalidShapes),
        ([*MATMUL, "--objective", "gpu"], UnknownObjective),
        (["run", "kernels.matmul:matmul", "--shapes", "100x128 100x128"], NothingLegal),
        (["show"], InvalidDatabase),
    ],
)
def test_mistakes(arguments: list[str], error: type[Exception], database) -> None:
    with pytest.raises(error):
        invoke(*arguments, "-d", database)


def test_arguments_that_do_not_fit_are_explained(database) -> None:
    with pytest.raises(InvalidCall, match="required argument: 'rhs'"):
        invoke("run", "kernels.matmul:matmul", "--shapes", "256x256:bfloat16", "-d", database)
