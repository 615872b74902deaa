"""Targets are files: those that come along, and a user's own with any field changed."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import numpy as np
import pytest
from targets_document import document
from typer.testing import CliRunner

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.__main__ import app
from nkilite.errors import FreeSizeExceeded, InvalidTarget, MemoryOverflow
from nkilite.machine.target import TARGETS, Target, get_target, target_identity

ROOT = Path(__file__).parents[2]
VARIABLE = "NEURON_PLATFORM_TARGET_OVERRIDE"
X = np.ones((128, 512), np.float32)


@nki.jit
def statistics(x):
    tile = nl.load(x)
    found = nl.ndarray((x.shape[0], 6), nl.float32)
    nisa.bn_stats(found, tile)
    out = nl.ndarray(found.shape, found.dtype, nl.shared_hbm)
    nl.store(out, found)
    return out


@pytest.fixture
def written(tmp_path):
    def write(text: str, name: str = "mychip.toml") -> str:
        path = tmp_path / name
        path.write_text(text)
        return str(path)

    return write


def test_every_field_is_read():
    """What nothing reads is no fact about the chip that decides anything."""
    read: set[str] = set()
    for folder in ("nkilite", "autotune"):
        for path in (ROOT / folder).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text()))
            read |= {n.attr for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    assert {f.name for f in dataclasses.fields(Target)} <= read


def test_targets_inherit():
    ours = ["trn1", "inf2", "trn2", "trn3", "trn4"]
    assert [name for name in TARGETS if name in ours] == ours
    assert TARGETS["inf2"].digest != TARGETS["trn1"].digest
    four, three = TARGETS["trn4"], TARGETS["trn3"]
    assert four.hbm_bytes_per_ns == 4 * three.hbm_bytes_per_ns
    assert (four.sbuf_fmax_bytes, four.generation) == (three.sbuf_fmax_bytes, three.generation)
    assert not four.calibrated


def test_a_file_changes_what_it_names(written):
    path = written('inherits = "trn3"\ntensor_ghz = 3\npe_tile_sizes = [64, 128]\nmatmul_dtypes = ["bfloat16"]\n')
    target = get_target(path)
    assert (target.name, target.tensor_ghz, target.pe_tile_sizes) == ("mychip", 3.0, (64, 128))
    assert dataclasses.replace(
        target, name="trn3", tensor_ghz=2.4, pe_tile_sizes=(32, 64, 128), aliases=("gen4",),
        matmul_dtypes=TARGETS["trn3"].matmul_dtypes,
    ) == TARGETS["trn3"]
    assert get_target(path) is target
    assert get_target("mychip") is target
    assert target_identity(path) == f"mychip@{target.digest}"
    assert target_identity("gen4") == "trn3"
    child = written('inherits = "mychip.toml"\nname = "child"\nvector_ghz = 2\n', "other.toml")
    assert get_target(child).tensor_ghz == 3.0
    written('inherits = "trn3"\ntensor_ghz = 4.5\n')
    assert get_target(path).tensor_ghz == get_target(child).tensor_ghz == 4.5
    assert get_target(path).digest != target.digest


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('inherits = "trn2"\ntensor_gz = 3.0', ("tensor_gz is no field", "did you mean tensor_ghz?")),
        ('inherits = "trn2"\ntensor_ghz = "fast"', ("tensor_ghz = 'fast' is not a number",)),
        ('inherits = "trn2"\npsum_banks = 8.5', ("psum_banks = 8.5 is not an int",)),
        ('inherits = "trn2"\nhardware_dge = 1', ("hardware_dge = 1 is not true or false",)),
        ('inherits = "trn2"\nmatmul_dtypes = ["bf17"]', ("matmul_dtypes", "'bf17', which is no dtype")),
        ('inherits = "trn2"\nvector_ghz = -1', ("vector_ghz = -1.0 is not positive",)),
        ('inherits = "trn2"\nvector_ghz = nan', ("vector_ghz = nan",)),
        ('inherits = "trn2"\nsbuf_reserved_bytes = 300000', ("sbuf_reserved_bytes = 300000 leaves nothing",)),
        ('inherits = "trn2"\nquadrant_partitions = 48', ("quadrant_partitions = 48 does not divide",)),
        ('inherits = "trn2"\nunwritten_byte = 256', ("unwritten_byte = 256 is no byte",)),
        ('inherits = "trn7"', ("inherits = 'trn7' is no target", "trn2")),
        ('inherits = "mychip.toml"', ("inherits from itself",)),
        ('inherits = "trn2"\nname = "trn1"', ("name = 'trn1' is that of a target of nkilite",)),
        ("tensor_ghz = 3.0", ("has no generation and", 'inherits = "trn2"')),
        ("tensor_ghz 3", ("is not TOML",)),
    ],
)
def test_mistakes_name_file_and_key(written, text, says):
    path = written(text)
    with pytest.raises(InvalidTarget) as caught:
        get_target(path)
    for part in ("mychip.toml", "fix: ", *says):
        assert part in str(caught.value)


def test_no_such_file(tmp_path):
    with pytest.raises(InvalidTarget, match="No such file"):
        get_target(str(tmp_path / "missing.toml"))


def test_launches_follow_the_file(written, monkeypatch):
    """Limits of the file hold simulated and compiled, and also when it changes between two launches."""
    path = written('inherits = "trn2"\nbn_stats_fmax = 512\n')
    monkeypatch.setenv(VARIABLE, path)
    statistics(X)
    statistics(X)
    written('inherits = "trn2"\nbn_stats_fmax = 256\n')
    for launch in (statistics, nki.simulate(statistics)):
        with pytest.raises(FreeSizeExceeded, match="limit is 256 on mychip"):
            launch(X)


def test_one_size_of_sbuf(written, monkeypatch):
    """What the compiler plans for is what nl.tile_size promises."""
    text = 'inherits = "trn2"\nsbuf_partition_bytes = 8192\nsbuf_reserved_bytes = 4096\n'
    monkeypatch.setenv(VARIABLE, written(text))

    @nki.jit
    def kernel(x):
        assert nl.tile_size.sbuf_fmax_bytes == 4096
        tiles = [nl.load(x), nl.load(x), nl.load(x)]
        out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
        for tile in tiles:
            nl.store(out, tile)
        return out

    with pytest.raises(MemoryOverflow, match="of 4096"):
        kernel(X)
    assert nki.profile(kernel, X).overflow is not None


def test_the_page_is_current():
    page = ROOT / "docs" / "targets.md"
    assert page.read_text() == document(), "run: PYTHONPATH=. python tests/machine/targets_document.py"


def test_commands(written):
    run = CliRunner().invoke
    listed = run(app, ["targets"]).output
    assert all(name in listed for name in TARGETS)
    path = written('inherits = "trn2"\nvector_ghz = 9.0\n')
    shown = run(app, ["targets", path]).output
    assert 'name = "mychip"' in shown
    assert "vector_ghz = 9.0" in shown
    again = written(shown, "again.toml")  # what is shown is a target file
    assert dataclasses.replace(get_target(again), name="mychip") == get_target(path)
    spec = f"{Path(__file__)}:statistics"
    profiled = run(app, ["profile", spec, "--shapes", "128x512:float32", "--target", f"trn2,{path}"]).output
    assert "mychip is not calibrated" in " ".join(profiled.split())
    settings = {VARIABLE: "", "NKILITE_CACHE": "0"}
    compiled = run(app, ["compile", spec, "128x512:float32", "--target", path], env=settings)
    assert "target mychip" in " ".join(compiled.output.split())
