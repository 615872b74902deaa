"""Collectives against NumPy: every one, on 1 to 8 ranks, on one and two cores, simulated and compiled, on any ring."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import nkilite as nki
import nkilite.collectives as ncc
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.ir.rank import Rank

WRAPS = {"simulate": nki.simulate, "compiled": nki.jit}
ROWS, COLUMNS = 8, 6


def brought(rank, dtype=np.float32):
    """What a rank brings: rows that tell ranks and places apart."""
    return (np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS) + 100 * rank).astype(dtype)


def group_of(count):
    """A rank list that is not in order."""
    return [(i * 3) % count if count % 3 else i for i in range(count)]


def kernel(x, kind, group, memory, op=nl.add):
    """One collective: in HBM of both cores, or of each core, or in SBUF."""
    count = len(group)
    rows = {"all_gather": ROWS * count, "reduce_scatter": ROWS // count}.get(kind, ROWS)
    replicas = ncc.ReplicaGroup([group])
    out = nl.ndarray((rows, COLUMNS), dtype=x.dtype, buffer=nl.shared_hbm)
    made = nl.ndarray((rows, COLUMNS), dtype=x.dtype, buffer=memory)
    source = nl.ndarray(x.shape, dtype=x.dtype, buffer=memory)
    alone = nl.program_id(0) == 0 or memory != nl.shared_hbm
    if alone:
        nisa.dma_copy(source, x)
    if memory == nl.shared_hbm and nl.num_programs() > 1:
        nisa.core_barrier(source, (0, 1))
    if kind == "all_reduce":
        ncc.all_reduce([source], [made], replicas, op)
    elif kind == "reduce_scatter":
        ncc.reduce_scatter([source], [made], replicas, 0, op)
    elif kind == "collective_permute":
        pairs = [(group[i], group[(i + 1) % count]) for i in range(count)]
        ncc.collective_permute([source], [made], pairs)
    else:
        getattr(ncc, kind)([source], [made], replicas, collective_dim=0)
    if nl.program_id(0) == 0:
        nisa.dma_copy(out, made)
    return out


def expected(kind, group, rank, dtype=np.float32, reduce=np.add):
    every = [brought(r, dtype) for r in group]
    count, position = len(group), group.index(rank)
    if kind == "all_gather":
        return np.concatenate(every)
    if kind == "all_to_all":
        return np.concatenate([np.split(x, count)[position] for x in every])
    if kind == "collective_permute":
        return every[position - 1]
    total = every[0]
    for x in every[1:]:
        total = reduce(total, x)
    return total if kind == "all_reduce" else np.split(total, count)[position]


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("mode", WRAPS)
@pytest.mark.parametrize(
    ("kind", "memory"),
    [
        *((kind, nl.shared_hbm) for kind in (
            "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "collective_permute")),
        *((kind, nl.sbuf) for kind in ("all_reduce", "all_gather", "reduce_scatter")),
        ("all_to_all", nl.private_hbm),
    ],
    ids=str,
)
def test_whole_collectives(kind, memory, mode, cores):
    launch = WRAPS[mode](kernel)[cores]
    for count in (1, 2, 4, 8) if mode == "compiled" else (2, 4):
        group = group_of(count)
        found = nki.ranks(count, lambda rank, group=group: launch(brought(rank), kind, group, memory))
        for rank in range(count):
            np.testing.assert_array_equal(found[rank], expected(kind, group, rank))


@pytest.mark.parametrize("dtype", [np.int32, nl.bfloat16.numpy])
@pytest.mark.parametrize("op", [nl.minimum, nl.maximum, nl.add])
def test_reductions(op, dtype):
    reduce = {nl.minimum: np.minimum, nl.maximum: np.maximum, nl.add: np.add}[op]
    found = nki.ranks(3, lambda rank: nki.jit(kernel)(brought(rank, dtype), "all_reduce", [0, 1, 2], nl.sbuf, op))
    total = expected("all_reduce", [0, 1, 2], 0, np.float32, reduce)
    if dtype != np.int32:
        total = expected("all_reduce", [0, 1, 2], 0, np.float32, lambda a, b: reduce(a, b.astype(dtype).astype("f4")))
    np.testing.assert_array_equal(found[1], total.astype(dtype))


@pytest.mark.parametrize("lists", [((0, 1),), [range(2)], np.arange(2).reshape(1, 2), [[np.int64(0), np.uint8(1)]]])
def test_lists_of_ranks_of_any_kind(lists):
    def both(x):
        tile, out = nl.load(x), nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm)
        ncc.all_reduce([tile], [tile], ncc.ReplicaGroup(lists), nl.add)
        nisa.dma_copy(out, tile)
        return out

    for wrap in WRAPS.values():
        for found in nki.ranks(2, lambda rank, wrap=wrap: wrap(both)(brought(rank))):
            np.testing.assert_array_equal(found, brought(0) + brought(1))


def test_several_lists_and_tensors():
    def pairs(x):
        source, made = ([nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm, name=f"{n}{i}") for i in range(2)]
                        for n in "sm")
        nisa.dma_copy(source[0], x)
        nisa.dma_copy(source[1], x)
        ncc.all_reduce(source, made, ncc.ReplicaGroup([[0, 2], [1, 3]]), nl.add)
        out = [nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm) for _ in range(2)]
        for to, result in zip(out, made, strict=True):
            nisa.dma_copy(to, result)
        return out

    found = nki.ranks(4, lambda rank: nki.jit(pairs)(brought(rank)))
    for rank, results in enumerate(found):
        for result in results:
            np.testing.assert_array_equal(result, brought(rank % 2) + brought(rank % 2 + 2))


def test_gathered_columns_in_sbuf():
    def columns(x):
        out = nl.ndarray((ROWS, 3 * COLUMNS), x.dtype, buffer=nl.shared_hbm)
        made = nl.ndarray((ROWS, 3 * COLUMNS), x.dtype, buffer=nl.sbuf)
        ncc.all_gather([nl.load(x)], [made], ncc.ReplicaGroup([[2, 0, 1]]), collective_dim=1)
        nisa.dma_copy(out, made)
        return out

    for found in nki.ranks(3, lambda rank: nki.jit(columns)(brought(rank))):
        np.testing.assert_array_equal(found, np.concatenate([brought(r) for r in (2, 0, 1)], axis=1))


def ring_gather(x, count, reduce=False):
    """An all_gather by hand: each step computes on what has come while the next is sent; right for any ring."""
    group = ncc.ReplicaGroup([list(range(count))])
    out = nl.ndarray((count, *x.shape), x.dtype, buffer=nl.shared_hbm)
    buffers = [nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf) for _ in range(2)]
    zero = nl.ndarray(x.shape, x.dtype, buffer=nl.sbuf)
    nisa.memset(zero, 0)
    nisa.dma_copy(buffers[0], x)
    for step in range(count):
        here, there = buffers[step % 2], buffers[(step + 1) % 2]
        whose = ncc.collective_permute_implicit_current_processing_rank_id(step, group)
        if step + 1 < count and reduce:
            ncc.collective_permute_implicit_reduce([[here]], [[zero]], [[there]], group, nl.add)
        elif step + 1 < count:
            ncc.collective_permute_implicit([[here]], [[there]], group)
        nisa.dma_copy(out.select(0, whose), here)
    return out


@pytest.mark.parametrize("ring", [0, 1, 2, 3])
@pytest.mark.parametrize(("mode", "reduce"), [("compiled", False), ("compiled", True), ("simulate", False)])
def test_rings_of_any_order(mode, reduce, ring):
    for count in (1, 5):
        found = nki.ranks(count, lambda rank, n=count: WRAPS[mode](ring_gather)(brought(rank), n, reduce), ring=ring)
        for result in found:
            np.testing.assert_array_equal(result, [brought(r) for r in range(count)])


def test_rings_differ():
    def before(x, channel):
        out = nl.ndarray((1, 1), nl.int32, buffer=nl.shared_hbm)
        tile = nl.ndarray((1, 1), nl.int32, buffer=nl.sbuf)
        group = ncc.ReplicaGroup([list(range(6))])
        whose = ncc.collective_permute_implicit_current_processing_rank_id(1, group, channel)
        nisa.register_store(tile, whose * 2 + ncc.rank_id() * 100)
        nisa.dma_copy(out, tile)
        return out

    def around(ring, channel=0):
        found = nki.ranks(6, lambda rank: int(nki.jit(before)(brought(rank), channel)[0, 0]), ring=ring)
        assert [value // 100 for value in found] == list(range(6))
        return tuple(value % 100 // 2 for value in found)

    assert around(0) == (5, 0, 1, 2, 3, 4)
    rings = {around(ring) for ring in range(4)} | {around(1, channel) for channel in (1, 2)}
    assert len(rings) >= 4
    for ring, count in itertools.product(range(1, 9), range(3, 9)):
        group = tuple(range(count))
        assert Rank(0, count, ring).around(group) != group  # the first rank is the first: no rotations
    assert all(sorted(ring) == list(range(6)) for ring in rings)


def by_counts(x, counts, kind, prepared, known, displacements):
    """all_to_all_v or all_gather_v; returns the destination and the metadata."""
    group = ncc.ReplicaGroup([list(range(counts.shape[1]))])
    out, source, made = (nl.ndarray((48,), x.dtype, buffer=nl.shared_hbm, name=n) for n in ("out", "source", "made"))
    metadata = nl.ndarray(counts.shape, nl.uint32, buffer=nl.shared_hbm)
    told = nl.ndarray(counts.shape, nl.uint32, buffer=nl.shared_hbm)
    nisa.dma_copy(source.reshape((8, 6)), x)
    nisa.dma_copy(made.reshape((8, 6)), x)
    nisa.dma_copy(metadata, counts)
    given = ([source], [made], group, metadata, known, displacements)
    if prepared:
        handle = getattr(ncc, f"{kind}_prepare")(*given)
        nisa.dma_copy(metadata[1], metadata[0]).depends_on(handle)  # too late to matter
        getattr(ncc, f"{kind}_trigger")(prepare_instr=handle).depends_on(handle)
    else:
        getattr(ncc, kind)(*given)
    nisa.dma_copy(out, made)
    nisa.dma_copy(told, metadata)
    return out, told


@pytest.mark.parametrize("mode", WRAPS)
@pytest.mark.parametrize("kind", ["all_to_all_v", "all_gather_v"])
@pytest.mark.parametrize(("prepared", "known", "displacements"), [(False, False, False), (True, True, True)])
def test_amounts_that_the_device_knows(kind, prepared, known, displacements, mode):
    count = 4
    rng = np.random.default_rng(0)
    table = np.zeros((count, 3 + displacements, count), np.uint32)
    table[:, 0], table[:, 1] = rng.integers(0, 8, (count, count)), rng.integers(0, 40, (count, count))
    table[:, 2] = 77
    if displacements:
        table[:, 3] = np.array([36, 24, 0, 12])
    results = nki.ranks(count, lambda rank: WRAPS[mode](by_counts)(
        brought(rank), table[rank], kind, prepared, known, displacements))
    for rank, (found, told) in enumerate(results):
        right = brought(rank).reshape(-1).copy()
        column = 0 if kind == "all_gather_v" else rank
        for sender in range(count):
            n, first = table[sender, :2, column]
            to = table[rank, 3, sender] if displacements else 12 * sender
            right[to : to + n] = brought(sender).reshape(-1)[first : first + n]
        np.testing.assert_array_equal(found, right)
        assert told[2].tolist() == ([77] * count if known else table[:, 0, column].tolist())


def test_counts_out_of_bounds():
    table = np.array([[0, 13], [0, 0], [0, 0]], np.uint32)
    table[0, 1] = 25
    with pytest.raises(errors.InvalidCounts, match="rank 1 say that it takes elements 0 to 25 of 24"):
        nki.ranks(2, lambda rank: nki.jit(by_counts)(brought(rank), table, "all_to_all_v", False, False, False))


# --- what goes wrong --------------------------------------------------------------------------------------------------


def failing(body, count=2, error=errors.NkiError):
    """The error of a kernel on some ranks."""

    def run(rank):
        def kernel(x):
            body(rank, nl.load(x), lambda: nl.ndarray(x.shape, x.dtype, buffer=nl.shared_hbm))
            return x

        return nki.jit(kernel)(brought(rank))

    with pytest.raises(error) as caught:
        nki.ranks(count, run)
    return caught.value


GROUP = ncc.ReplicaGroup([[0, 1]])
MISUSES = {
    "a list of one": lambda t, hbm: ncc.all_reduce(t, t, GROUP, nl.add),
    "a list of 1 to 8 tensors": lambda t, hbm: ncc.all_reduce([], [], GROUP, nl.add),
    "two in SBUF": lambda t, hbm: ncc.all_reduce([t, t], [t, t], GROUP, nl.add),
    "mixed memories": lambda t, hbm: ncc.all_reduce([t], [hbm()], GROUP, nl.add),
    "another op": lambda t, hbm: ncc.all_reduce([t], [t], GROUP, nl.multiply),
    "overlapping lists": lambda t, hbm: ncc.all_reduce([t], [t], ncc.ReplicaGroup([[0, 1], [1, 2]]), nl.add),
    "no group": lambda t, hbm: ncc.all_reduce([t], [t], [[0, 1]], nl.add),
    "shape of all_gather": lambda t, hbm: ncc.all_gather([t], [t], GROUP, 0),
    "dimension of all_gather": lambda t, hbm: ncc.all_gather([hbm()], [hbm()], GROUP, 1),
    "all_to_all in SBUF": lambda t, hbm: ncc.all_to_all([t], [t], GROUP, 0),
    "pairs that form no circle": lambda t, hbm: ncc.collective_permute([hbm()], [hbm()], [(0, 1)]),
    "list for each of 5": lambda t, hbm: ncc.collective_permute_implicit(
        [[t[i : i + 1]] for i in range(5)], [[t[i : i + 1]] for i in range(5)], GROUP, [0, 1, 2, 3, 4]),
    "channels": lambda t, hbm: ncc.collective_permute_implicit([[t]], [[t]], GROUP, [1]),
    "priority before trn3": lambda t, hbm: ncc.all_reduce([t], [t], GROUP, nl.add, priority=1),
    "metadata": lambda t, hbm: ncc.all_to_all_v([hbm()], [hbm()], GROUP, hbm()),
    "float8_e4m3fn_x4; allowed on trn2": lambda t, hbm: ncc.all_reduce(
        [t.view(nl.float8_e4m3fn_x4)], [t.view(nl.float8_e4m3fn_x4)], GROUP, nl.add),
    "equally long": lambda t, hbm: ncc.all_reduce([t], [t], ncc.ReplicaGroup([[0], [1, 2]]), nl.add),
    "share memory": lambda t, hbm: ncc.all_gather([t[:4]], [t], GROUP, 0) and ncc.all_reduce(
        [a := hbm(), a], [a, a], GROUP, nl.add),
    "trigger of nothing": lambda t, hbm: ncc.all_to_all_v_trigger(None),
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse(name):
    found = failing(lambda rank, tile, hbm: MISUSES[name](tile, hbm))
    assert isinstance(found, (errors.NkiValidationError, errors.UnsupportedOnTarget))
    assert found.location.file == __file__
    assert "nki.collectives." in str(found)


def test_arguments_are_no_operands():
    def kernel(x):
        ncc.all_reduce([x], [x], GROUP, nl.add)
        return x

    with pytest.raises(errors.InvalidOperand, match="x, an argument of the kernel"):
        nki.jit(kernel)(brought(0))


@pytest.mark.parametrize(("operand", "write"), {
    r"srcs\[0\]": lambda a, b, g: ncc.all_reduce([a], [b], g, nl.add),
    r"srcs_by_channel\[1\]\[0\]": lambda a, b, g: ncc.collective_permute_implicit(
        [[b[:, :1]], [a[:, :1]]], [[b[:, :1]], [b[:, 1:2]]], g, [0, 1]
    ),
    r"srcs1_by_channel\[0\]\[0\]": lambda a, b, g: ncc.collective_permute_implicit_reduce(
        [[b]], [[a]], [[b]], g, nl.add
    ),
}.items())
@pytest.mark.parametrize("mode", WRAPS)
def test_operands_in_messages_are_those_that_were_given(operand, write, mode):
    def reads_what_nobody_wrote(x):
        unwritten, written, out = (nl.ndarray(x.shape, x.dtype, buffer=b) for b in (nl.sbuf, nl.sbuf, nl.shared_hbm))
        nisa.dma_copy(written, x)
        write(unwritten, written, ncc.ReplicaGroup([[0]]))
        nisa.dma_copy(out, written)
        return out

    with pytest.raises(errors.UninitializedRead, match=f"reads {operand}, but"):
        WRAPS[mode](reads_what_nobody_wrote)(brought(0))


def test_prepared_and_not_triggered():
    def kernel(x):
        a, b = (nl.ndarray((8,), nl.float32, buffer=nl.shared_hbm) for _ in range(2))
        counts = nl.ndarray((3, 2), nl.uint32, buffer=nl.shared_hbm)
        ncc.all_to_all_v_prepare([a], [b], GROUP, counts)
        return x

    with pytest.raises(errors.CollectiveNotTriggered) as caught:
        nki.jit(kernel)(brought(0))
    assert caught.value.location.source.startswith("ncc.all_to_all_v_prepare")


@pytest.mark.parametrize("mode", WRAPS)
@pytest.mark.parametrize("outside", ["prepare", "trigger"])
def test_prepared_and_triggered_in_one_turn_of_a_loop(outside, mode):
    def kernel(x):
        a, b = (nl.ndarray((8,), nl.float32, buffer=nl.private_hbm) for _ in range(2))
        counts = nl.ndarray((3, 1), nl.uint32, buffer=nl.private_hbm)
        ones = nl.ndarray((3, 8), nl.uint32, buffer=nl.sbuf)
        nisa.memset(ones, 1)
        nisa.dma_copy(counts, ones[:, :1])
        nisa.dma_copy(a, ones[0].view(nl.float32))

        def prepare():
            return ncc.all_to_all_v_prepare([a], [b], ncc.ReplicaGroup([[0]]), counts)

        prepared = [prepare()] if outside == "prepare" else []

        def turn(i):
            if outside == "prepare":
                ncc.all_to_all_v_trigger(prepared[0])
            else:
                prepared.append(prepare())

        nl.fori_loop(0, 1, turn)
        ncc.all_to_all_v_trigger(prepared[0])
        return x

    with pytest.raises(errors.InvalidOperand, match="prepared outside of this loop"):
        WRAPS[mode](kernel)(brought(0))


def test_ranks_that_do_not_come():
    def one(rank, tile, hbm):
        if rank == 0:
            ncc.all_reduce([tile], [tile], GROUP, nl.add)

    assert "rank 0 waits in nki.collectives.all_reduce for rank 1, which has ended" in str(failing(one))

    def different(rank, tile, hbm):
        (ncc.all_reduce if rank else ncc.reduce_scatter)(
            [tile], [tile if rank else tile[:4]], GROUP, **({} if rank else {"collective_dim": 0}), op=nl.add)

    message = str(failing(different, error=errors.RanksDiffer))
    assert "nki.collectives.all_reduce" in message
    assert "nki.collectives.reduce_scatter" in message

    def across(rank, tile, hbm):
        pairs = [(0, 1), (1, 2), (2, 0)]
        for first, second in pairs[rank:] + pairs[:rank]:
            if rank in (first, second):
                ncc.all_reduce([tile], [tile], ncc.ReplicaGroup([[first, second]]), nl.add)

    failing(across, 3, errors.RankLost)

    def broken(rank, tile, hbm):
        if rank == 1:
            raise ValueError("no data on rank 1")
        ncc.all_reduce([tile], [tile], GROUP, nl.add)

    failed = failing(broken, error=ValueError)
    assert "on rank 1 of" in "".join(getattr(failed, "__notes__", ["on rank 1 of"]))


def test_ranks_that_are_not_there():
    def run(x, group):
        tile = nl.load(x)
        ncc.all_reduce([tile], [tile], ncc.ReplicaGroup(group), nl.add)
        return x

    for group in ([[0, 1]], [[1, 2]]):
        for wrap in WRAPS.values():
            with pytest.raises(errors.RankMissing, match="1 rank"):
                wrap(run)(brought(0), group)
    with pytest.raises(errors.RankInNoGroup, match=r"rank 2 comes to nki.collectives.all_reduce of \[\[0, 1\]\]"):
        nki.ranks(3, lambda rank: nki.jit(run)(brought(rank), [[0, 1]]))
    with pytest.raises(errors.InvalidOperand, match="count is int 0"):
        nki.ranks(0, print)
    with pytest.raises(errors.InvalidOperand, match="main is int 5"):
        nki.ranks(2, 5)
