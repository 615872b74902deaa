"""Profiles of launches over ranks: collectives beside compute, on a topology, and what is said of them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from test_record import follows

import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
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
from nkilite.machine.topology_files import get_topology
from nkilite.profiling import advise
from nkilite.profiling.html import page
from nkilite.profiling.overlap import communication, exposed_us
from nkilite.profiling.perfetto import trace_events
from nkilite.profiling.record import SCHEMA, record
from nkilite.profiling.text import communication_table, comparison

X = np.zeros((128, 2048), np.float32)
SIZE = X.nbytes


def hbm(x, name: str, buffer=nl.shared_hbm, times: int = 1):
    return nl.ndarray((x.shape[0] * times, *x.shape[1:]), dtype=x.dtype, buffer=buffer, name=name)


def everybody(ranks: int):
    return ncc.ReplicaGroup([list(range(ranks))])


@nki.jit
def reduced(x, ranks: int, work: int = 0, beside: int = 0):
    """Work that the reduction needs, and work beside it."""
    source, total, out = hbm(x, "source"), hbm(x, "total"), hbm(x, "out")
    tile, other = (nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf) for _ in range(2))
    nisa.dma_copy(tile, x)
    nisa.memset(other, 0.0)
    for _ in range(work):
        nisa.activation(tile, nl.exp, tile)
    nisa.dma_copy(source, tile)
    ncc.all_reduce([source], [total], everybody(ranks), nl.add)
    for _ in range(beside):
        nisa.activation(other, nl.exp, other)  # beside
    nisa.dma_copy(other, total)
    nisa.dma_copy(out, other)
    return out


def world(name: str, ranks: int, cores: int = 1) -> World:
    return World.of(get_topology(name), ranks, get_target("trn2"), cores)


def only(profile):
    (found,) = communication(profile)
    return found


def test_a_collective_takes_its_time_on_the_topology() -> None:
    for ranks, name in ((2, "trn2-48xlarge"), (64, "trn2-48xlarge"), (300, "trn2-ultraserver"), (600, "trn2-cluster")):
        profile = nki.profile(reduced, X, ranks, target="trn2")
        found = only(profile)
        expected = all_reduce(world(name, ranks), range(ranks), SIZE)
        assert profile.world == world(name, ranks)
        assert found.collective.transfer == expected
        assert found.busy_us == pytest.approx(expected.ns / 1000)
        assert (found.collective.kind, found.collective.size) == ("all_reduce", SIZE)
    named = nki.profile(reduced, X, 4, target="trn2", topology="trn2-mesh")
    assert only(named).collective.transfer == all_reduce(world("trn2-mesh", 4), range(4), SIZE)


def test_compute_that_needs_nothing_of_it_hides_it() -> None:
    alone, beside = (nki.profile(reduced, X, 64, beside=n, target="trn2") for n in (0, 20))
    collective = only(beside)
    assert beside.span_us < alone.span_us + 0.5 * beside.engines["Scalar"].busy_us
    assert exposed_us(alone) == pytest.approx(collective.busy_us, rel=0.2)
    assert exposed_us(beside) == 0
    at = next(i for i in range(len(beside.workload)) if beside.opcode(i) == "all_reduce")
    after = beside.timeline.start[at + 21]  # the load of the result
    assert after >= beside.timeline.finish[at]


def test_collectives_of_a_rank_follow_each_other() -> None:
    @nki.jit
    def twice(x):
        out = hbm(x, "out")
        for i in range(2):
            source, total = hbm(x, f"source{i}"), hbm(x, f"total{i}")
            nisa.dma_copy(source, x)
            ncc.all_reduce([source], [total], everybody(8), nl.add)
            nisa.dma_copy(out, total)
        return out

    profile = nki.profile(twice, X, target="trn2")
    one, other = (i for i in range(len(profile.workload)) if profile.opcode(i) == "all_reduce")
    assert profile.timeline.start[other] >= profile.timeline.end[one]
    assert only(profile).times == 2
    assert profile.engines["Collectives"].instructions == 2


def test_kinds_and_memories() -> None:
    pairs = [(i, (i + 1) % 8) for i in range(8)]

    @nki.jit
    def all_kinds(x):
        source, one, many = hbm(x, "source"), hbm(x, "one"), hbm(x, "many", times=8)
        nisa.dma_copy(source, x)
        ncc.all_gather([source], [many], everybody(8), 0)
        ncc.reduce_scatter([many], [one], everybody(8), 0, nl.add)
        ncc.collective_permute([source], [one], pairs)
        a, b = (nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf) for _ in range(2))
        nisa.dma_copy(a, x)
        ncc.collective_permute_implicit([[a]], [[b]], everybody(8))
        ncc.collective_permute_implicit_reduce([[a]], [[b]], [[a]], everybody(8), nl.add)
        out = hbm(x, "out")
        nisa.dma_copy(out, a)
        return out

    profile = nki.profile(all_kinds, X, target="trn2")
    here = world("trn2-48xlarge", 8)
    found = {c.collective.kind: c.collective for c in communication(profile)}
    assert found["all_gather"].transfer == all_gather(here, range(8), 8 * SIZE)
    assert found["reduce_scatter"].size == 8 * SIZE
    assert found["collective_permute"].transfer == permute(here, pairs, SIZE)
    ring = around(here, range(8), [SIZE])
    assert found["collective_permute_implicit"].transfer == ring
    assert found["collective_permute_implicit_reduce"].transfer == ring


def test_each_core_sends_what_is_its_own_and_both_send_once_what_they_share() -> None:
    @nki.jit
    def sent(x, shared: bool):
        buffer = nl.shared_hbm if shared else nl.private_hbm
        source, total, out = hbm(x, "source", buffer), hbm(x, "total", buffer), hbm(x, "out")
        nisa.dma_copy(source, x)
        if shared:
            nisa.core_barrier(source, (0, 1))
        ncc.all_reduce([source], [total], everybody(8), nl.add)
        nisa.dma_copy(out, total)
        return out

    shared, own = (only(nki.profile(sent[2], X, s, target="trn2")) for s in (True, False))
    assert (shared.collective.size, own.collective.size) == (SIZE, 2 * SIZE)
    assert (shared.times, own.times) == (1, 1)
    assert own.collective.transfer == all_reduce(world("trn2-48xlarge", 8, 2), range(8), 2 * SIZE)


def test_a_rank_alone_and_a_kernel_without_communication() -> None:
    alone = nki.profile(reduced, X, 1, target="inf2")
    assert alone.world is None
    assert only(alone).collective.transfer.algorithm == "copy"
    assert only(alone).busy_us == pytest.approx(2 * SIZE / get_target("inf2").hbm_bytes_per_ns / 1000)

    @nki.jit
    def copied(x):
        out = hbm(x, "out")
        nisa.dma_copy(out, x)
        return out

    silent = nki.profile(copied, X, target="trn2")
    assert not communication(silent)
    assert "Collectives" not in silent.engines
    assert exposed_us(silent) == 0


def test_within_ranks_their_number_and_topology_count() -> None:
    def main(rank: int):
        profile = nki.profile(reduced, X, 4, target="trn2")
        return profile.world, profile.latency_us

    for topology in ("trn2-ring", None):
        found = nki.ranks(8, main, topology=topology)
        assert {w for w, _ in found} == {world(topology or "trn2-48xlarge", 8)}
        assert len({latency for _, latency in found}) == 1
    with pytest.raises(errors.UnknownTopology):
        nki.ranks(2, main, topology="trn2-star")
    with pytest.raises(errors.RankMissing, match="rank 2 in"):
        nki.ranks(2, main)


def test_groups_of_a_rank_are_its_own() -> None:
    @nki.jit
    def halves(x):
        source, total, out = hbm(x, "source"), hbm(x, "total"), hbm(x, "out")
        nisa.dma_copy(source, x)
        ncc.all_reduce([source], [total], ncc.ReplicaGroup([[0, 1], [2, 3]]), nl.add)
        nisa.dma_copy(out, total)
        return out

    assert nki.ranks(4, lambda _: only(nki.profile(halves, X, target="trn2")).collective.group) == [
        (0, 1), (0, 1), (2, 3), (2, 3)
    ]
    assert nki.profile(halves, X, target="trn2").world.ranks == 4


def test_topologies_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(errors.TooManyRanks, match="trn2-ultraserver, trn2-cluster, trn2-ultracluster"):
        nki.profile(reduced, X, 129, target="trn2", topology="trn2-48xlarge")
    chip = tmp_path / "other.toml"
    chip.write_text('inherits = "trn2"\ndevice = "Elsewhere"\n')
    with pytest.raises(errors.NoTopology, match="Elsewhere"):
        nki.profile(reduced, X, 4, target=str(chip))
    assert nki.profile(reduced, X, 4, target=str(chip), topology="trn2-ring").world.topology.name == "trn2-ring"


def beside_loads(x, y, ranks: int, loads: int):
    """An all_gather, and loads that need nothing of it."""
    source, gathered, out = hbm(x, "source"), hbm(x, "gathered", times=ranks), hbm(x, "out")
    tile = nl.ndarray(y.shape, dtype=y.dtype, buffer=nl.sbuf)
    nisa.dma_copy(source, x)
    ncc.all_gather([source], [gathered], everybody(ranks), 0)  # gathers
    for i in range(loads):
        other = nl.ndarray(y.shape, dtype=y.dtype, buffer=nl.sbuf)
        nisa.dma_copy(other, y)
        nisa.tensor_copy(tile, other) if i == 0 else nisa.tensor_tensor(tile, tile, other, op=nl.add)
    nisa.dma_copy(out, gathered[0:128])
    return out


def test_dma_engines_and_memory_are_shared_with_the_loads_of_the_kernel() -> None:
    """The more is loaded meanwhile, the later a collective ends; at most twice as late, for rings take turns."""
    found = []
    for loads in (0, 8, 64):
        profile = nki.profile(beside_loads, X, X, 8, loads, target="trn2")
        found.append((only(profile), profile.latency_us, advise(profile)))
    alone, some, many = (entry for entry, *_ in found)
    assert alone.delayed_us == pytest.approx(0, abs=1e-6)
    assert alone.busy_us == some.busy_us == many.busy_us
    assert 0 < some.delayed_us <= many.delayed_us <= alone.busy_us * 1.001
    said = next(a for a in found[2][2] if a.kind == "communication shares DMA")
    assert said.location.source.endswith("# gathers")
    assert "communication shares DMA" not in {a.kind for a in found[0][2]}


def test_a_collective_takes_engines_from_the_kernel() -> None:
    """What loads of a kernel gain where nothing communicates beside them."""

    def loading(x, y, communicates: bool):
        source, gathered = hbm(x, "source"), hbm(x, "gathered", times=8)
        nisa.dma_copy(source, x)
        if communicates:
            ncc.all_gather([source], [gathered], everybody(8), 0)
        tile = nl.ndarray(y.shape, dtype=y.dtype, buffer=nl.sbuf)
        nisa.memset(tile, 0.0)
        for _ in range(40):
            other = nl.ndarray(y.shape, dtype=y.dtype, buffer=nl.sbuf)
            nisa.dma_copy(other, y)
            nisa.tensor_tensor(tile, tile, other, op=nl.add)
        out = hbm(y, "out")
        nisa.dma_copy(out, tile)
        return out

    alone, beside = (nki.profile(loading, X, X, c, target="trn2") for c in (False, True))
    moved = 8 * SIZE / (16 * get_target("trn2").dma_bytes_per_ns) / 1000  # of what is read and written, half each
    assert alone.latency_us < beside.latency_us <= alone.latency_us + 1.3 * moved


def test_rank_lists_share_the_links_of_their_chips() -> None:
    """Four ranks on each of four chips: four lists across the chips are as fast as one that sends as much."""
    there = world("trn2-48xlarge", 16, 2)
    across = [[chip * 4 + rank for chip in range(4)] for rank in range(4)]
    size = 1 << 26
    for collective in (all_gather, reduce_scatter, all_reduce, all_to_all):
        alone, together = collective(there, across[0], size), collective(there, across[0], size, across)
        assert alone.ns < together.ns <= 4.001 * alone.ns
        assert collective(there, across[0], size, across[:1]) == alone
    within = [list(range(4 * chip, 4 * chip + 4)) for chip in range(4)]  # no links
    assert all_gather(there, within[0], size, within) == all_gather(there, within[0], size)
    assert around(there, across[0], [size], across).ns > around(there, across[0], [size]).ns


def test_advice_and_reports() -> None:
    profile = nki.profile(reduced, X, 64, target="trn2")
    found = next(a for a in advise(profile) if a.kind == "communication not hidden")
    assert "all_reduce" in found.location.source
    assert f"{SIZE:,} bytes" in found.figure
    hidden = nki.profile(reduced, X, 64, beside=30, target="trn2")
    assert "communication not hidden" not in {a.kind for a in advise(hidden)}

    data = record(profile)
    follows(json.loads(json.dumps(data)), json.loads(SCHEMA.read_text()))
    assert (data["topology"], data["ranks"]) == ("trn2-48xlarge", 64)
    assert data["communication"][0]["exposed_us"] == exposed_us(profile)
    slices = [e for e in trace_events(profile)["traceEvents"] if e["name"] == "all_reduce"]
    assert slices[0]["dur"] == pytest.approx(only(profile).busy_us)
    text = page(profile)
    assert "one of 64 ranks on trn2-48xlarge" in text
    assert '"Collectives"' in text
    assert communication_table(profile).row_count == 1
    shown = Console(width=200, record=True, file=StringIO())
    shown.print(comparison([profile]))
    assert "communication not hidden" in shown.export_text()
    assert "no measured kernel communicates" in profile.error
