"""Topologies as data, and how long collectives take on them: published ranges, monotone, exact in small cases."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from nkilite import errors
from nkilite.__main__ import app
from nkilite.machine import topology_files
from nkilite.machine.communication import (
    World,
    all_gather,
    all_reduce,
    all_to_all,
    around,
    permute,
    reduce_scatter,
)
from nkilite.machine.target import get_target
from nkilite.machine.topology_files import get_topology, topologies, topology_for

FILES = sorted((Path(topology_files.__file__).parent / "topologies").glob("*.toml"))
MB = 1 << 20


def world(name: str, ranks: int, cores: int = 2) -> World:
    topology = get_topology(name)
    chip = next(t for t in ("trn1", "trn2", "trn3") if get_target(t).device == topology.device)
    return World.of(topology, ranks, get_target(chip), min(cores, get_target(chip).max_logical_core_size))


TRN2 = world("trn2-48xlarge", 64)  # four ranks of two cores on each of 16 chips


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_every_figure_has_a_reason(path: Path) -> None:
    """A comment on its line, or before it in the file that describes all fields."""
    lines = path.read_text().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"(shape|bytes_per_ns|hop_ns|congestion) =", line) and line != "shape = [0]":
            assert "#" in line or before.startswith("#"), f"{path.name}: {line}"


def test_levels_and_inheritance() -> None:
    names = ("48xlarge", "ultraserver", "cluster")
    assert [get_topology(f"trn2-{name}").chips for name in names] == [16, 64, 0]
    assert get_topology("trn2-ultracluster").levels[:2] == get_topology("trn2-ultraserver").levels
    assert TRN2.room == 64
    assert world("trn2-48xlarge", 1, cores=1).room == 128
    assert [topology_for("Trainium2", n).name for n in (1, 16, 17, 65)] == [
        "trn2-48xlarge", "trn2-48xlarge", "trn2-ultraserver", "trn2-cluster"
    ]


def test_distances_and_links_of_a_torus() -> None:
    (torus,) = TRN2.topology.levels
    assert [torus.distance(0, n) for n in (1, 2, 3, 4, 5, 10, 12)] == [1, 2, 1, 1, 2, 4, 1]
    links = {units: torus.span(range(units)).bytes_per_ns / torus.bytes_per_ns for units in (2, 4, 8, 16)}
    assert links == {2: 1, 4: 2, 8: 3, 16: 4}
    assert torus.span(range(16)).distance == pytest.approx(32 / 15)
    assert torus.span({0, 10}).bytes_per_ns == torus.bytes_per_ns / 4  # over three others


def test_the_algorithm_changes_with_the_size_where_it_is_published_to() -> None:
    """Mesh below 1 MB, RDH to 56 MB, KangaRing beyond: the model's own figures, but for the congestion of Mesh."""

    def changes(function) -> list[float]:
        sizes = np.geomspace(1e4, 1e9, 400)
        names = [function(TRN2, range(64), size).algorithm for size in sizes]
        assert [n for n in dict.fromkeys(names) if "single" not in n] == ["mesh", "rdh", "kangaring"]
        return [sizes[names.index(name)] / 1e6 for name in ("rdh", "kangaring")]

    for function in (all_gather, reduce_scatter, all_reduce):
        first, second = changes(function)
        assert 0.7 < first < 1.4
        assert 30 < second < 80


def test_few_bytes_take_the_latency_of_their_steps() -> None:
    hop = 1500
    assert all_gather(TRN2, range(64), 1).ns == pytest.approx(2 * hop, rel=1e-3)  # to the chips, and within them
    assert all_gather(TRN2, range(4), 1).ns == pytest.approx(hop, rel=1e-3)
    assert all_reduce(TRN2, range(64), 1).algorithm == "single-step mesh"
    assert all_reduce(TRN2, range(64), 1).ns == pytest.approx(hop, rel=1e-3)
    cluster = world("trn2-cluster", 256)
    assert all_gather(cluster, range(0, 256, 64), 1).ns == pytest.approx(15_000, rel=1e-3)
    assert all_gather(cluster, range(256), 1).ns == pytest.approx(15_000 + 2 * hop, rel=1e-3)


def test_many_bytes_take_the_bandwidth_of_links_and_memory() -> None:
    size = 1 << 30
    links = 4 * 128
    assert all_gather(TRN2, range(0, 64, 4), size).ns == pytest.approx(size * 2 / 750, rel=0.01)  # memory is slower
    every = all_gather(TRN2, range(64), size).ns
    assert every == pytest.approx(max(size * 15 / 16 / links, 1.5 * size / 750), rel=0.03)
    two = all_gather(TRN2, (0, 4), size)  # neighbours on one link: each sends its half
    assert two.ns == pytest.approx(size / 2 / 128, rel=0.01)
    cluster = world("trn2-cluster", 128)
    assert all_gather(cluster, (0, 64), size).ns == pytest.approx(size / 2 / 25, rel=0.01)
    # All ranks of a chip share its network interface.
    more = all_gather(cluster, range(128), size).ns - every
    assert more == pytest.approx(15_000 + 4 * size / 64 / 2 / 25)


def test_neighbours_send_at_once_and_the_slowest_pair_decides() -> None:
    size = 8 * MB
    chain = [(rank, (rank + 4) % 64) for rank in range(64)]  # every rank to its place on the next chip
    assert permute(TRN2, chain, size).ns == pytest.approx(1500 + 4 * size / 64, rel=0.01)  # rows end two links apart
    assert permute(TRN2, [(0, 1), (1, 0)], size).ns == pytest.approx(1500 + 2 * size / 750)
    assert permute(TRN2, [(0, 4), (4, 0)], size).ns == pytest.approx(1500 + size / 128)
    assert permute(world("trn2-cluster", 128), [(0, 64), (64, 0)], size).ns == pytest.approx(15_000 + size / 25)
    one, two = (around(TRN2, range(64), [size / n] * n).ns for n in (1, 2))
    assert two == pytest.approx(1500 + max(size / 2 / 128, 2 * size / 750))
    assert one == pytest.approx(1500 + max(size / 128, 2 * size / 750))


def test_what_joins_chips_shows_in_the_time() -> None:
    torus, ring, mesh = (world(f"trn2-{name}", 64) for name in ("48xlarge", "ring", "mesh"))
    small, large = MB / 4, 64 * MB
    assert "rdh" not in {all_gather(ring, range(64), size).algorithm for size in (small, MB, large)}
    for function in (all_gather, all_to_all):
        assert function(mesh, range(64), small).ns < function(torus, range(64), small).ns
        assert function(torus, range(64), small).ns < function(ring, range(64), small).ns
        assert function(torus, range(64), large).ns <= function(ring, range(64), large).ns
    far, near = world("trn2-cluster", 256), world("trn2-ultraserver", 256)
    assert all_reduce(near, range(256), large).ns < all_reduce(far, range(256), large).ns


FIRST = [range(n) for n in (2, 3, 4, 8, 12, 16, 32, 64)]
GROUPS = st.sampled_from([*FIRST, range(0, 64, 4), range(1, 64, 16), (3, 40)])


@given(
    st.sampled_from([all_gather, reduce_scatter, all_reduce, all_to_all]),
    st.sampled_from(["48xlarge", "ring", "mesh"]), GROUPS, st.integers(1, 1 << 28), st.integers(1, 1 << 28),
)
def test_more_bytes_never_take_less_time(function, name: str, group, one: int, other: int) -> None:
    here = world(f"trn2-{name}", 64)
    few, many = sorted((one, other))
    shorter, longer = (function(here, group, size).ns for size in (few, many))
    assert 1500 <= shorter <= longer
    assert longer >= many / 64 / (4 * 128)  # no chip sends its part faster than all its links


@given(GROUPS, st.integers(64, 1 << 28))
def test_a_reduction_for_all_is_no_slower_than_its_two_halves(group, size: int) -> None:
    both = reduce_scatter(TRN2, group, size).ns + all_gather(TRN2, group, size).ns
    assert all_reduce(TRN2, group, size).ns <= both * (1 + 1e-9)


LEVEL = '[[level]]\nname = "links"\nkind = "torus"\nshape = [4]\nbytes_per_ns = 100\nhop_ns = 1000\ncongestion = 1\n'
INVALID = [
    ("", "has no device"), ("device = 1", "device = 1 is not a string"), ('device = "x"', "has no [[level]]"),
    ('inherits = "trn0"', "'trn0' is no topology"), ("inherits = 3", "inherits = 3 is not a string"),
    ('inherits = "mine.toml"', "inherits from itself"), ("device = ", "is not TOML"),
    ('device = "x"\nchips = 4', "chips is no key"), ('device = "x"\nlevel = 4', "level is no list"),
    ('device = "x"\n' + LEVEL.replace("links", "all").replace("torus", "star"), "kind = 'star' is not one of torus"),
    ('device = "x"\n' + LEVEL.replace("[4]", "[]"), "shape = [] is not a list of ints"),
    ('device = "x"\n' + LEVEL.replace("[4]", "[0, 4]"), "shape = [0, 4] is not"),
    ('device = "x"\n' + LEVEL.replace("100\n", "0\n"), "bytes_per_ns = 0 is not a number above 0"),
    ('device = "x"\n' + LEVEL.replace("hop_ns = 1000", "hop_ns = true"), "hop_ns = True is not a number"),
    ('device = "x"\n' + LEVEL.replace("congestion = 1", "congestion = 0.5"), "congestion = 0.5 is not a number from 1"),
    ('device = "x"\n' + LEVEL.replace("congestion = 1", "width = 1"), "width is no field of a level"),
    ('device = "x"\n' + LEVEL.replace("congestion = 1\n", ""), "a level has no congestion"),
    ('device = "x"\n' + LEVEL.replace("[4]", "[0]") + LEVEL, "any number of units"),
]


@pytest.mark.parametrize(("text", "problem"), INVALID, ids=[p for _, p in INVALID])
def test_files_that_describe_none(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(errors.InvalidTopology) as caught:
        get_topology(str(path))
    assert problem in str(caught.value)
    assert "mine.toml" in str(caught.value)


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('inherits = "trn2-48xlarge"\n' + LEVEL.replace("links", "more"))
    assert [level.name for level in get_topology(str(path)).levels] == ["NeuronLink", "more"]
    with pytest.raises(errors.InvalidTopology, match="cannot be read"):
        get_topology(str(tmp_path / "none.toml"))
    with pytest.raises(errors.UnknownTopology, match="trn2-48xlarge"):
        get_topology("trn2")


def test_the_command(tmp_path: Path) -> None:
    run = CliRunner().invoke
    listed = run(app, ["topologies"])
    assert listed.exit_code == 0, listed.output
    assert all(name in listed.output for name in topologies())
    shown = run(app, ["topologies", "trn2-48xlarge"])
    assert "64 ranks of 2 core(s)" in shown.output
    assert "kangaring" in shown.output
    assert "modelled" in shown.output
    assert "128 ranks of 1 core(s)" in run(app, ["topologies", "trn2-48xlarge", "--cores", "1"]).output
    with pytest.raises(errors.TooManyRanks, match="trn2-cluster"):
        run(app, ["topologies", "trn2-48xlarge", "--ranks", "65"], catch_exceptions=False)
