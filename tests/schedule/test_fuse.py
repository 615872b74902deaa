"""Which instructions are fused, how, and which must not be; tiles of which one partition is kept."""

from __future__ import annotations

import importlib
import re
from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.codegen import elementwise
from nkilite.ir.definition import REGISTRY
from nkilite.machine import engine as costs
from nkilite.schedule import fuse, runs
from nkilite.schedule.pipeline import scheduled
from nkilite.schedule.printer import print_schedule
from nkilite.schedule.schedule import Schedule
from nkilite.schedule.tree import Group, Loop, Op, Register, Tree
from nkilite.testing import make
from nkilite.trace.instruction import instruction
from nkilite.trace.tensor import NkiTensor


def passed(kernel: Any, *arrays: np.ndarray, **options: Any) -> Schedule:
    """The schedule after all passes."""
    return scheduled(nki.jit(getattr(kernel, "__wrapped__", kernel)).trace(*arrays, **options))


def row_groups(schedule: Schedule) -> list[Group]:
    return [g for g in schedule.groups if isinstance(g.tree.body[0], Loop) and not g.tree.terms]


def elided(group: Group) -> list[int]:
    return [op.member for op in group.tree.ops if op.elided]


def grouped(schedule: Schedule) -> list[list[str]]:
    """The names of the instructions of every row group."""
    names = [i.signature.name for i in schedule.program]
    return [names[g.first : g.first + g.size] for g in row_groups(schedule)]


def x(rows: int = 128, width: int = 1024) -> np.ndarray:
    return make((rows, width), "float32")


# --- what is decided ----------------------------------------------------------------------------------------

GOLDEN = {
    "softmax": """\
group of 6 keeps %sb3 %sb4 %sb5 %sb7 %sb2 {
  scratch 64 16448 64
  for rows 128 by 1 parallel 1 {
    0 dma_copy(dst=nowhere) elided
    1 tensor_reduce(dst=scratch 0 + 0, data=source 0 + 0 prefetch 0..1/8)
    2 activation(dst=scratch 1 + 0, data=source 0 + 0 prefetch 1..8/8, bias=scratch 0 + 0, reduce_res=scratch 2 + 0)
    3 reciprocal(dst=scratch 2 + 0, data=scratch 2 + 0)
    for columns 4096 beside 2 {
      4 tensor_scalar(dst=#0 register, data=#1 scratch 1 + 0, operand0=#2 scratch 2 + 0)
      5 dma_copy(dst=#3 nontemporal, src=#0 register)
    }
  }
}
""",
    "rmsnorm": """\
layout %sb3 broadcast
layout %sb4 broadcast
group of 5 keeps %sb7 %sb6 %sb9 %sb5 {
  scratch 16448 64
  for rows 128 by 1 parallel 1 {
    0 dma_copy(dst=nowhere) elided
    1 activation(dst=scratch 0 + 0 unread, data=source 0 + 0 prefetch 0..1/8, reduce_res=scratch 1 + 0)
    2 activation(dst=scratch 1 + 0, data=scratch 1 + 0)
    for columns 4096 {
      3 scalar_tensor_tensor(dst=#0 register, data=#1 source 0 + 0 prefetch 1..8/8, operand0=#2 scratch 1 + 0, \
operand1=#3)
      4 dma_copy(dst=#4 nontemporal, src=#0 register)
    }
  }
}
""",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_decisions_are_readable(name: str) -> None:
    module = importlib.import_module(f"kernels.{name}")
    text = print_schedule(passed(getattr(module, name), *module.inputs(rows=512, D=4096)))
    decided = re.findall(r"^layout [^\n]*\n|^group .*?^}\n", text, re.M | re.S)
    assert "".join(decided[: GOLDEN[name].count("layout") + 1]) == GOLDEN[name]
    alike = {re.sub(r"keeps .*? \{", "", group) for group in decided if group.startswith("group")}
    assert len(alike) == 1


def test_set_up_stays_out_of_the_repeated_group() -> None:
    module = importlib.import_module("kernels.rmsnorm")
    schedule = passed(module.rmsnorm, *module.inputs(rows=1024, D=2048))
    assert len({g.tree for g in row_groups(schedule)}) == 1
    assert len(row_groups(schedule)) == 8


def test_dead_tiles_take_no_memory() -> None:
    def kernel(x: Any) -> Any:
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        loaded, dead, unused, kept = (nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf) for _ in range(4))
        nisa.dma_copy(dst=loaded, src=x)
        nisa.activation(dst=dead, op=nl.square, data=loaded)
        nisa.activation(dst=unused, op=nl.square, data=loaded)
        nisa.tensor_tensor(dst=kept, data1=dead, data2=dead, op=nl.add)
        other = nl.ndarray((64, 1024), dtype=x.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=other, src=kept[0:64, :])
        nisa.dma_copy(dst=out[0:64, :], src=other)
        nisa.dma_copy(dst=out[64:128, :], src=kept[64:128, :])
        return out

    schedule = passed(kernel, x())
    first = row_groups(schedule)[0]
    ops = first.tree.ops
    assert elided(first) == [0], "the load is read in place"
    assert [schedule.program.buffers[id].id for id in sorted(first.private)] == [2, 3]
    assert ops[1].uses[0].place == Register(), "a tile that two neighbours alone need stays in registers"
    assert ops[2].uses[0].place is None, "a tile that other instructions read is in memory"


# --- what may be interchanged -------------------------------------------------------------------------------

TILE = (128, 512)


def new() -> Any:
    return nl.ndarray(TILE, dtype=nl.float32, buffer=nl.sbuf)


def test_another_number_of_partitions_is_another_group() -> None:
    def kernel(x: Any) -> Any:
        one, two = new(), new()
        nisa.dma_copy(dst=one, src=x)
        nisa.activation(dst=two, op=nl.square, data=one)
        nisa.activation(dst=two[0:96, :], op=nl.square, data=one[0:96, :])
        nisa.activation(dst=one[0:96, :], op=nl.square, data=two[0:96, :])
        nisa.dma_copy(dst=x, src=two)
        return x

    assert [len(names) for names in grouped(passed(kernel, x(*TILE)))] == [2, 2, 1]


def test_rows_that_cross_are_not_interchanged() -> None:
    def kernel(x: Any) -> Any:
        one, two = new(), new()
        nisa.dma_copy(dst=one, src=x)
        nisa.dma_copy(dst=two, src=x)
        for to in (32, 64):  # on rows that were read, then on others
            nisa.tensor_copy(dst=two[0:64, :], src=one[0:64, :])
            nisa.dma_copy(dst=one[to : to + 64, :], src=two[0:64, :])
        nisa.dma_copy(dst=x, src=one)
        return x

    assert [len(names) for names in grouped(passed(kernel, x(*TILE)))] == [2, 1, 1, 2, 1]


def test_stores_of_stacked_rows() -> None:
    """Row i of the tile goes to rows i, 128 + i, ... of HBM: nothing meets, so it can be fused."""

    def kernel(x: Any) -> Any:
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 4, 64), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x.reshape((4, 128, 64)).permute((1, 0, 2)))
        nisa.activation(dst=tile, op=nl.square, data=tile)
        nisa.dma_copy(dst=out.reshape((4, 128, 64)).permute((1, 0, 2)), src=tile)
        return out

    data = x(512, 64)
    assert grouped(passed(kernel, data)) == [["dma_copy", "activation", "dma_copy"]]
    np.testing.assert_array_equal(nki.jit(kernel)(data), data * data)


def test_hbm_rows_that_cross_are_not_interchanged() -> None:
    def kernel(x: Any) -> Any:
        tile, other = new(), new()
        nisa.dma_copy(dst=tile, src=x[0:128, :])
        nisa.activation(dst=other, op=nl.square, data=tile)
        nisa.dma_copy(dst=x[1:129, :], src=other)
        return x

    names = grouped(passed(kernel, x(129, 512)))
    assert ["dma_copy", "activation", "dma_copy"] not in names


def test_a_load_of_what_is_stored_in_between_is_not_read_in_place() -> None:
    def kernel(x: Any) -> Any:
        tile, other, third = new(), new(), new()
        nisa.dma_copy(dst=tile, src=x)
        nisa.activation(dst=other, op=nl.square, data=tile)
        nisa.dma_copy(dst=x, src=other)
        nisa.tensor_tensor(dst=third, data1=tile, data2=other, op=nl.add)
        nisa.dma_copy(dst=x, src=third)
        return x

    (group,) = row_groups(passed(kernel, x(*TILE)))
    assert elided(group) == []


def test_one_array_for_two_arguments() -> None:
    def kernel(x: Any, y: Any) -> Any:
        one, two, three = new(), new(), new()
        nisa.dma_copy(dst=one, src=y)
        nisa.activation(dst=two, op=nl.square, data=one)
        nisa.dma_copy(dst=x, src=two)
        nisa.tensor_tensor(dst=three, data1=one, data2=two, op=nl.add)
        nisa.dma_copy(dst=x, src=three)
        return x

    expected, got = x(*TILE), x(*TILE)
    expected = expected + expected * expected
    nki.jit(kernel)(got, got)
    np.testing.assert_array_equal(got, expected)


def test_groups_of_others_are_left_alone() -> None:
    def kernel(x: Any) -> Any:
        one, two = new(), new()
        nisa.dma_copy(dst=one, src=x)
        nisa.activation(dst=two, op=nl.square, data=one)
        nisa.dma_copy(dst=x, src=two)
        return x

    schedule = Schedule(nki.jit(kernel).trace(x(*TILE)), groups=[other := Group(1, 1, Tree((), (Op(0, ()),)))])
    assert [g for g in fuse.Fuse().run(schedule).groups if g.first <= 1 < g.first + g.size] == [other]
    assert all(g.first != 1 and g.first + g.size != 2 for g in row_groups(schedule))


def test_distinct_groups_are_bounded() -> None:
    def kernel(x: Any) -> Any:
        tile, other = new(), new()
        for i in range(200):
            nisa.dma_copy(dst=tile, src=x)
            for bit in range(8):
                source, target = (tile, other) if bit % 2 else (other, tile)
                if bit == 0:
                    nisa.memset(dst=other, value=1.0)
                elif i >> bit & 1:
                    nisa.activation(dst=target, op=nl.square, data=source)
                else:
                    nisa.tensor_copy(dst=target, src=source)
            nisa.dma_copy(dst=x, src=tile)
        return x

    schedule = passed(kernel, x(*TILE))
    codes = {}
    program = schedule.program
    starts = program.starts()
    for group in row_groups(schedule):
        members = tuple(program.code[at] for at in starts[group.first : group.first + group.size])
        codes[members, group.tree] = len(members)
    assert codes, "nothing was fused"
    assert sum(codes.values()) <= max(96, 2 * len(program.signatures))


# --- one partition for all ----------------------------------------------------------------------------------


def uniform(body: Any) -> bool:
    """Whether the tile that `body(vector, tile)` fills from an HBM vector is kept once."""

    def kernel(vector: Any) -> Any:
        out = nl.ndarray((128, 64), dtype=vector.dtype, buffer=nl.shared_hbm)
        tile = nl.ndarray((128, 64), dtype=vector.dtype, buffer=nl.sbuf, name="tile")
        result = nl.ndarray((128, 64), dtype=vector.dtype, buffer=nl.sbuf)
        body(vector, tile)
        nisa.tensor_copy(dst=result, src=tile)
        nisa.dma_copy(dst=out, src=result)
        return out

    vector = make((1, 64), "float32")
    schedule = passed(kernel, vector)
    np.testing.assert_array_equal(nki.jit(kernel)(vector), nki.simulate(kernel)(vector))
    return any(schedule.program.buffers[id].name == "tile" for id in schedule.broadcast)


def load(vector: Any, tile: Any) -> None:
    nisa.dma_copy(dst=tile, src=vector.broadcast(0, tile.shape[0]))


def test_a_vector_on_all_partitions_is_kept_once() -> None:
    assert uniform(load)


def test_computed_from_such_vectors() -> None:
    def body(vector: Any, tile: Any) -> None:
        loaded = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
        load(vector, loaded)
        nisa.activation(dst=tile, op=nl.square, data=loaded)

    assert uniform(body)


def test_updated_in_place() -> None:
    def body(vector: Any, tile: Any) -> None:
        load(vector, tile)
        nisa.activation(dst=tile, op=nl.square, data=tile)

    assert not uniform(body)


def test_filled_by_parts() -> None:
    def body(vector: Any, tile: Any) -> None:
        load(vector, tile[0:64, :])
        load(vector, tile[64:128, :])

    assert not uniform(body)


def test_read_across_partitions() -> None:
    def body(vector: Any, tile: Any) -> None:
        load(vector, tile)
        turned = nl.ndarray((64, 128), dtype=tile.dtype, buffer=nl.psum)
        nisa.nc_transpose(dst=turned, data=tile)
        read = nl.ndarray((1, 1), dtype=tile.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=read, src=turned[0:1, 0:1])
        nl.device_print("read", read)

    assert not uniform(body)


# --- repetitions --------------------------------------------------------------------------------------------


def same_without_repetitions(schedule: Schedule) -> bool:
    """Whether looking at every instruction finds the same groups as recognizing runs that are repeated."""
    quick = schedule.groups
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs.Finder, "_repetition", lambda *_: None)
        schedule.groups = [g for g in quick if g.tree.terms or g.tree.moves]
        return fuse.Fuse().run(schedule).groups == quick


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("adam", {"rows": 1024, "D": 1024}),
        ("layernorm", {"rows": 700, "D": 512}),
        ("flash_attention", {"heads": 2, "kv_heads": 1, "S_q": 512, "S_k": 512, "D": 64}),
        ("mamba", {"batch": 1, "channels": 256, "T": 512, "S": 4}),
    ],
)
def test_repeated_runs_are_grouped_alike(name: str, shape: dict[str, int]) -> None:
    module = importlib.import_module(f"kernels.{name}")
    schedule = passed(getattr(module, name), *module.inputs(**shape))
    assert len(row_groups(schedule)) > len({g.tree for g in row_groups(schedule)}), "nothing is repeated"
    assert same_without_repetitions(schedule)


@pytest.mark.parametrize("apart", [True, False])
def test_runs_on_otherwise_related_memory_are_no_repetitions(apart: bool) -> None:
    def kernel(x: Any) -> Any:
        for source, target in ((0, 128), (256, 384), (512, 640 if apart else 513)):
            tile, result = new(), new()
            nisa.dma_copy(dst=tile, src=x[source : source + 128])
            nisa.activation(dst=result, op=nl.square, data=tile)
            nisa.dma_copy(dst=x[target : target + 128], src=result)
        return x

    schedule = passed(kernel, x(768, TILE[1]))
    assert grouped(schedule)[0] == grouped(schedule)[1] == ["dma_copy", "activation", "dma_copy"]
    assert (grouped(schedule)[2] == grouped(schedule)[0]) == apart
    assert same_without_repetitions(schedule)


@pytest.mark.parametrize("fixed", [False, True])
def test_a_run_is_repeated_wherever_its_tiles_and_columns_are(fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With addresses in rotation, too; but not where tiles begin to overlap otherwise."""

    def tile(width: int, byte: int) -> Any:
        return nl.ndarray((128, width), nl.float32, nl.sbuf, address=(0, byte) if fixed else None)

    def kernel(x: Any) -> Any:
        out = nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        row = tile(1024, 0)
        nisa.dma_copy(dst=row, src=x)
        for turn in range(16):
            own = 4096 + 1024 * (turn % 4)
            low, high = tile(64, own), tile(64, own + (252 if turn == 9 else 512))
            nisa.tensor_copy(low, row[:, 64 * turn : 64 * turn + 64], engine=nisa.vector_engine)
            nisa.activation(dst=high, op=nl.square, data=low)
            nisa.dma_copy(dst=out[:, 64 * turn : 64 * turn + 64], src=high)
        return out

    looked: list[int] = []
    longest = runs.Finder._longest

    def count(self: Any, similar: Any, index: int) -> Any:
        looked.append(index)
        return longest(self, similar, index)

    monkeypatch.setattr(runs.Finder, "_longest", count)
    schedule = passed(kernel, x(128, 1024))
    assert len(looked) <= (5 if fixed else 3), looked
    assert same_without_repetitions(schedule)


# --- what a load is ---------------------------------------------------------------------------------------------


@pytest.fixture
def negating_load():
    """An instruction that no other module knows: into = -(data + bias), from HBM to a tile."""

    @instruction(writes=("into",), by_row=1, elementwise=True)
    def negating_load(into: NkiTensor, data: NkiTensor, bias: NkiTensor, name=None) -> None: ...

    definition = REGISTRY.pop("negating_load")
    definition.rules["check"] = lambda call: None
    definition.rules["reference"] = lambda call, into, data, bias: -(data + bias)
    definition.rules["cost"] = lambda call: costs.dma(call.target, call.into.partitions, call.into.free_bytes)
    definition.rules["lower"] = lambda call, kernel: elementwise.map(
        kernel, "into", ("data", "bias"), lambda e, x, bias: e.neg(e.add(x, bias))
    )
    return negating_load


def test_a_load_that_computes_is_no_copy(negating_load):
    """It reads HBM and fetches ahead there, but nobody may read HBM in its place."""

    def kernel(x):
        loaded, result = (nl.ndarray(x.shape, x.dtype, nl.sbuf) for _ in range(2))
        bias = nl.ndarray((128, 1), nl.float32, nl.sbuf)
        nisa.memset(bias, 1.0)
        negating_load(loaded, x, bias)
        nisa.activation(result, nl.exp, loaded)
        out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
        nisa.dma_copy(out, result)
        return out

    data = make((128, 8192), "float32")
    (group,) = row_groups(passed(kernel, data))
    assert elided(group) == []
    assert [op.member for op in group.tree.ops if any(use.prefetch for use in op.uses)] == [0]
    np.testing.assert_allclose(nki.jit(kernel)(data), np.exp(-(data + 1)), rtol=1e-5)
