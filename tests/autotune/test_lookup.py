"""Tuned configurations at launch: exact, nearest legal shape, default; explicit values; the decorator."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import slow_subject

import autotune
import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from autotune import Space
from autotune.database import Choice
from autotune.errors import InvalidDatabase, UnknownParameter
from autotune.lookup import Configurations
from autotune.objective import Modelled
from nkilite.errors import NoTuner
from nkilite.runtime import configurations

SPACE = {"CHUNK": [32, 48, 96, 192]}


def tuned(kernel, *shapes):
    database = autotune.Database(None)
    for rows, columns in shapes:
        x = np.zeros((rows, columns), np.float32)
        autotune.search(kernel, (x,), objective="trn2", space=SPACE, database=database)
    return database


@pytest.fixture
def launched(kernel):
    """Registers a database for launches; afterwards none is."""
    yield lambda database: nki.register_configurations(Configurations(database))
    autotune.use(None)


def chunks(kernel, x, **kwargs) -> int:
    """How many chunks the kernel cut x into, seen in its program."""
    return sum(1 for i in kernel.trace(x, **kwargs) if i.signature.name == "tensor_scalar")


def test_exact_shape(kernel, launched, x) -> None:
    assert chunks(kernel, x) == 3
    launched(tuned(kernel, x.shape))
    assert chunks(kernel, x) == 1
    np.testing.assert_array_equal(kernel(x), 2 * x)


def test_explicit_values_win(kernel, launched, x) -> None:
    launched(tuned(kernel, x.shape))
    assert chunks(kernel, x, CHUNK=32) == 6
    assert chunks(kernel, x, COPIES=1) == 1


def test_nearest_legal_shape(kernel, launched) -> None:
    launched(tuned(kernel, (128, 192), (128, 48)))
    assert chunks(kernel, np.zeros((128, 384), np.float32)) == 2  # 192 is nearest and divides
    assert chunks(kernel, np.zeros((128, 240), np.float32)) == 5  # 192 does not divide; 48 does


def test_default_when_nothing_fits(kernel, launched) -> None:
    launched(tuned(kernel, (128, 192)))
    assert chunks(kernel, np.zeros((128, 64), np.float32)) == 1  # CHUNK=192 does not divide: the default, 64
    assert chunks(kernel, np.zeros((128, 192), np.float16)) == 3  # another dtype
    assert chunks(kernel, np.zeros((128, 192), np.float32), factor=3.0) == 3  # another compile-time value


def test_another_target_is_another_key(kernel, launched, x, monkeypatch) -> None:
    launched(tuned(kernel, x.shape))
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", "trn1")
    assert chunks(kernel, x) == 3


def test_repeated_lookups_are_cheap(kernel, x) -> None:
    lookup = Configurations(tuned(kernel, x.shape))
    assert lookup(kernel, {"x": x}) == {"CHUNK": 192}
    started = time.perf_counter()
    for _ in range(1000):
        lookup(kernel, {"x": x})
    assert time.perf_counter() - started < 0.1  # 0.1 ms each at the very most


def test_use_takes_databases_and_exports(kernel, x, tmp_path) -> None:
    database = autotune.Database(tmp_path / "db.jsonl")
    autotune.search(kernel, (x,), space=SPACE, database=database)
    database.export(tmp_path / "best.json")
    try:
        for name in ("db.jsonl", "best.json"):
            autotune.use(tmp_path / name)
            assert chunks(kernel, x) == 1
    finally:
        autotune.use(None)
    assert chunks(kernel, x) == 3


def test_what_cannot_be_read_is_told(tmp_path) -> None:
    (tmp_path / "other.json").write_text("[]")
    for name in ("absent.json", "absent.jsonl", "other.json"):
        with pytest.raises(InvalidDatabase, match=name):
            autotune.use(tmp_path / name)


PROGRAM = """
import numpy as np, slow_subject
x = np.zeros((16, 8), np.float32)
assert slow_subject.slow(x).shape == x.shape
print(sum(i.signature.name == "tensor_scalar" for i in slow_subject.slow.trace(x)))
"""


def run_with(metadata: Path, tuned: Path) -> subprocess.CompletedProcess[str]:
    """A program that does not mention the tuner, where `metadata` tells what is installed."""
    path = os.pathsep.join([str(metadata), *sys.path])
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": path, "NKILITE_TUNED": str(tuned)},
        capture_output=True, text=True, timeout=120,
    )


def test_the_environment_names_an_export(tmp_path) -> None:
    workload = autotune.Workload.of(slow_subject.slow, np.zeros((16, 8), np.float32))
    context = workload.context(Space(slow_subject.SPACE), Modelled("trn2"))
    database, export = autotune.Database(None), tmp_path / "best.json"
    chosen = {"PASSES": 3, "SHIFT": 0.0}
    database.choose(Choice(context, chosen, 1.0, program=workload.program(chosen, "trn2")))
    database.export(export)
    installed = tmp_path / "tuner-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: tuner\nVersion: 1\n")
    (installed / "entry_points.txt").write_text(
        "[nkilite.configurations]\nautotune = autotune.lookup:configurations_of\n"
    )
    done = run_with(tmp_path, export)
    assert (done.stdout, done.returncode) == ("3\n", 0), done.stderr
    assert "InvalidDatabase" in run_with(tmp_path, tmp_path / "absent.json").stderr


def test_the_environment_names_a_file_that_nothing_reads(kernel, x, monkeypatch) -> None:
    monkeypatch.setenv("NKILITE_TUNED", "best.json")
    monkeypatch.setattr("nkilite.runtime.configurations._lookup", configurations._NOT_LOADED)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    for _ in range(2):
        with pytest.raises(NoTuner, match=r"(?s)NKILITE_TUNED names best.json.*autotune.use\('best.json'\)"):
            kernel(x)
    autotune.use(None)  # takes its place
    np.testing.assert_array_equal(kernel(x), 2 * x)


def declared(**options):
    @autotune.tune(**options)
    @nki.jit
    def kernel(x, bias, TILES=1):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        rows = x.shape[0] // TILES
        for i in range(TILES):
            nisa.dma_copy(dst=out[i * rows : (i + 1) * rows], src=x[i * rows : (i + 1) * rows])
        return out

    return kernel


def test_decorator_leaves_a_kernel(launched) -> None:
    kernel = declared(space={"TILES": [1, 2, 4]}, constraints=["TILES < 4"], key=["x"])
    assert isinstance(kernel, nki.Kernel)
    x, bias = np.ones((128, 8), np.float32), np.ones((1, 8), np.float32)
    database = autotune.Database(None)
    result = kernel.tuning.search(x, bias, database=database)
    assert {c.configuration["TILES"] for c in result.ranking} == {1, 2}
    worst = result.ranking[-1]
    context, program = next(database.of_kernel()), worst.outcomes[0].program
    database.choose(Choice(context, worst.configuration, worst.value, program=program))
    launched(database)
    other = np.ones((1, 64), np.float32)  # not part of the key
    assert len(kernel.trace(x, other).code) == len(kernel.trace(x, bias, TILES=worst.configuration["TILES"]).code)


def test_decorator_infers_and_refuses() -> None:
    assert declared().tuning.space == Space({"TILES": [1, 2, 4]})
    with pytest.raises(UnknownParameter, match="'TILE'"):
        declared(space={"TILE": [1]})
