"""What access rules claim is what the reference rules do: every loop of every instruction, by cutting its operands."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from access_testing import Call, Tile, bits, same_bits

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import dtypes
from nkilite.dtypes import ALL, Elements, bfloat16, float16, float32, int8, int32, uint8, uint16, uint32
from nkilite.ir.access import AccessMap, Kind, parse
from nkilite.ir.definition import REGISTRY
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.isa import alu

P, F = 6, 40
ADD = alu.TABLE["add"]
COMBINING = tuple(alu.TABLE[n] for n in ("add", "maximum", "minimum", "multiply", "bitwise_or", "bitwise_and"))
_command = nisa.reduce_cmd
_ADDING = (_command.reduce, _command.reset_reduce, _command.load_reduce)


def t(*shape: int, dtype: Any = float32, low: int = 0, below: int = 7) -> Tile:
    return Tile(shape, dtype, low=low, below=below)


WIDE, ROW = t(P, F), t(P, 1)
FREE = t(P, 4, 10)  # the same elements in two free dimensions
_NARROW = tuple(d for d in ALL.values() if not d.is_wide)
_FORMATS = tuple(d for d in _NARROW if d.kind != "x")
_ACTIVATION = {"dst": t(P, F, dtype=bfloat16), "op": nl.exp, "data": FREE}
_SUMMED = {**_ACTIVATION, "bias": ROW, "scale": ROW, "reduce_op": nl.add, "reduce_res": ROW}
_SCAN = {"dst": WIDE, "data0": WIDE, "data1": FREE, "op0": nl.multiply, "op1": nl.add}
_MATMUL = {"dst": t(8, 12).psum, "stationary": t(16, 8), "moving": t(16, 3, 4), "accumulate": False}
_BITS = {"dst": t(P, F, dtype=uint32), "data1": t(P, F, dtype=uint32), "data2": t(P, F, dtype=uint32)}
_E4M3, _E5M2 = dtypes.float8_e4m3fn_x4, dtypes.float8_e5m2_x4
_SCALE = dtypes.float8_e8m0fnu
_QUANTIZE = {"dst": t(32, 6, dtype=_E4M3), "src": t(32, 24, dtype=bfloat16), "dst_scale": t(4, 6, dtype=uint8)}
_DRAW = {"dst": t(P, 10)}

# What is enough to say of an instruction: arguments by name, and the chip where it is not trn2.
CALLS: dict[str, list[dict[str, Any]]] = {
    "activation": [
        _ACTIVATION, {**_ACTIVATION, "bias": ROW, "scale": 0.5}, {**_SUMMED, "reduce_cmd": _command.reset_reduce},
        {**_SUMMED, "reduce_cmd": _command.reduce}, {**_SUMMED, "reduce_cmd": _command.reset},
    ],
    "activation_reduce": [{**_ACTIVATION, "reduce_op": nl.add, "reduce_res": res, "bias": 1.0} for res in (ROW, None)],
    "activate2": [
        {"dst": WIDE, "op": nl.prelu, "data": FREE, "imm0": ROW, "imm1": 2.0, "op0": nl.multiply, "op1": nl.add,
         "relu_param": ROW, "reduce_op": nl.maximum, "reduce_res": res, "reduce_cmd": command, "target": "trn3"}
        for res, command in ((None, _command.idle), (ROW, _command.reset_reduce))
    ],
    "exponential": [
        {"dst": FREE, "src": WIDE, "max_value": ROW, "target": "trn3"},
        {"dst": FREE, "src": WIDE, "reduce_res": ROW, "reduce_cmd": _command.load_reduce, "reduce_init": ROW,
         "target": "trn3"},
    ],
    "tensor_tensor": [
        *({"dst": t(P, F, dtype=d), "data1": t(P, F, dtype=d), "data2": t(P, 4, 10, dtype=d), "op": nl.subtract}
          for d in _FORMATS),
        *({**_BITS, "op": op} for op in (nl.bitwise_xor, nl.left_shift)),
        {"dst": t(P, F, dtype=int8), "data1": WIDE, "data2": FREE, "op": nl.power},
    ],
    "tensor_scalar": [
        {"dst": t(P, F, dtype=bfloat16), "data": FREE, "op0": nl.subtract, "operand0": ROW, "reverse0": True,
         "op1": op1, "operand1": operand1} for op1, operand1 in ((None, None), (nl.maximum, 0.5), (nl.multiply, ROW))
    ],
    "scalar_tensor_tensor": [
        {"dst": WIDE, "data": FREE, "op0": nl.multiply, "operand0": operand, "op1": nl.subtract, "operand1": WIDE}
        for operand in (2.0, ROW)
    ],
    "reciprocal": [{"dst": t(P, F, dtype=float16), "data": FREE}],
    "tensor_copy": [{"dst": t(P, F, dtype=d), "src": t(P, 4, 10, dtype=s)} for d in (bfloat16, uint8) for s in _FORMATS]
    + [{"dst": t(P, F, dtype=d), "src": t(P, 4, 10, dtype=d)} for d in _NARROW],
    "tensor_copy_predicated": [
        {"dst": t(P, F, dtype=d), "src": src, "predicate": t(P, F, dtype=uint16, below=2)}
        for d, src in ((float32, FREE), (uint8, t(P, F, dtype=uint8)), (bfloat16, 0.5))
    ],
    "memset": [{"dst": t(P, F, dtype=d), "value": 3.5} for d in (float32, uint8)],
    "fill_unwritten": [{"dst": t(P, F), "value": 0.0}, {"dst": t(P, F, dtype=uint8).hbm, "value": 255.0}],
    "set_rounding": [{"dst": t(P, 4, dtype=uint32), "src": t(P, 4, dtype=uint32).hbm}],
    "advance_counters": [{"dst": t(P, 2, dtype=uint32), "step": t(P, 2, dtype=uint32)}],
    "find_special": [
        {"data": FREE, "state": t(P, 5, dtype=uint32, below=2), "number": 7, "what": what}
        for what in ("nan", "nan and inf")
    ],
    "round_stochastically": [
        {
            "dst": t(P, 4, 10, dtype=d), "data": FREE, "low": t(P, 1, dtype=uint32), "high": t(P, 1, dtype=uint32),
            "columns": t(1, 4, 10, dtype=uint32).hbm, "site_low": 5, "site_high": 1 << 31,
        }
        for d in (bfloat16, float16)
    ],
    "tensor_reduce": [
        {"dst": t(P, *kept, dtype=d), "op": op, "data": t(P, 4, 5, 2, dtype=d), "axis": axis}
        for d, op in ((float32, nl.add), (bfloat16, nl.maximum), (uint16, nl.bitwise_or), (float32, nl.subtract))
        for kept, axis in (((20,), 3), ((5, 4), 3), ((4, 1, 1), (2, 3)), ((1,), (1, 2, 3)))
    ],
    "tensor_partition_reduce": [
        {"dst": t(1, F, dtype=d), "op": op, "data": t(P, 4, 10, dtype=d)}
        for d, op in ((float32, nl.add), (bfloat16, "average"), (uint8, nl.bitwise_and))
    ],
    "tensor_scalar_reduce": [
        {"dst": WIDE, "data": FREE, "op0": nl.multiply, "operand0": ROW, "reduce_op": nl.add, "reduce_res": ROW},
        {"dst": WIDE, "data": FREE, "op0": nl.abs, "operand0": None, "reduce_op": nl.maximum,
         "reduce_cmd": _command.reduce},
        {"dst": WIDE, "data": FREE, "op0": nl.add, "operand0": 1.0, "reduce_op": nl.minimum, "reduce_res": ROW,
         "reduce_cmd": _command.load_reduce, "reduce_init": ROW, "reduce_res_negate": True},
    ],
    "max8": [{"dst": t(P, 8), "src": FREE}],
    "nc_find_index8": [{"dst": t(P, 8, dtype=uint16), "data": t(P, F, dtype=uint8), "vals": t(P, 8, dtype=uint8)}],
    "nc_match_replace8": [
        {"dst": t(P, F, dtype=uint8), "data": t(P, F, dtype=uint8), "vals": t(P, 8, dtype=uint8), "imm": 9.0,
         "dst_idx": index} for index in (None, t(P, 8, dtype=uint32))
    ],
    "bn_stats": [{"dst": t(P, 6), "data": FREE}],
    "bn_aggr": [{"dst": t(P, 2), "data": t(P, 4, 3)}],
    "select_reduce": [
        {"dst": WIDE, "predicate": t(P, F, dtype=uint8, below=2), "on_true": t(P, 4, 10, dtype=d), "on_false": other,
         "reduce_res": res, "reduce_cmd": command}
        for d, other, res, command in (
            (float32, ROW, None, _command.idle), (bfloat16, 0.0, None, _command.idle),
            (float32, ROW, ROW, _command.reset_reduce), (float32, -1.0, None, _command.reduce),
        )
    ],
    "range_select": [
        {"dst": WIDE, "on_true_tile": FREE, "comp_op0": nl.greater_equal, "comp_op1": nl.less, "bound0": ROW,
         "bound1": t(P, 1), "reduce_res": res, "reduce_cmd": command, "range_start": 1}
        for res, command in ((ROW, _command.reset_reduce), (None, _command.idle))
    ],
    "tensor_tensor_scan": [{**_SCAN, "initial": initial, "reverse1": True} for initial in (0.0, ROW)],
    "tensor_scalar_cumulative": [
        {"dst": WIDE, "src": FREE, "op0": nl.multiply, "op1": nl.add, "imm0": ROW, "imm1": imm1, "reduce_cmd": command}
        for imm1, command in ((None, _command.reset_reduce), (None, _command.reduce), (ROW, _command.load_reduce))
    ],
    "nc_stream_shuffle": [
        {"dst": t(40, 10, dtype=int32), "src": t(40, 2, 5, dtype=int32), "shuffle_mask": (7, 255, *[0] * 30)},
        {"dst": t(20, 10), "src": t(1, 10), "shuffle_mask": (0,) * 32},
    ],
    "nc_n_gather": [{"dst": t(P, 12), "data": t(P, 7), "indices": t(P, 3, 4, dtype=uint32)}],
    "local_gather": [
        {"dst": t(32, 10 * n), "src_buffer": t(32, 16), "index": t(32, 1, dtype=uint16), "num_elem_per_idx": n,
         "num_valid_indices": 10} for n in (1, 4)
    ],
    "tensor_indirection": [
        {"dst": t(64, 10), "data": t(64, 16), "index": t(64, 1, dtype=int32, below=16), "count": 10, "group": group}
        for group in (16, 32)
    ],
    "tensor_scatter": [
        {"dst": t(64, 16), "data": t(64, 10), "index": t(64, 1, dtype=int32, below=16), "count": 10, "group": group}
        for group in (16, 32)
    ],
    "topk": [{"val_dst": t(32, 5, dtype=bfloat16), "idx_dst": t(32, 5, dtype=uint32),
              "src": t(32, 3, dtype=bfloat16), "n": 41}],
    "nonzero_with_count": [{"dst": t(20, 13, dtype=int32), "src": t(20, 12, dtype=int32, below=2)}],
    "sequence_bounds": [{"dst": t(1, 2, 20), "segment_ids": t(1, 20, dtype=int32, below=2)}],
    "iota": [
        {"dst": t(P, 12, dtype=int32), "pattern": pattern, "offset": 3, "channel_multiplier": 7}
        for pattern in ([[5, 3], [1, 4]], [[5, 12]])
    ],
    "affine_select": [
        {"dst": t(P, 12, dtype=d), "on_true_tile": t(P, 3, 4), "pattern": pattern, "offset": 2,
         "channel_multiplier": -3, "on_false_value": -1.0, "cmp_op": nl.greater_equal}
        for d, pattern in ((float32, [[1, 12]]), (bfloat16, [[1, 12]]), (float32, [[2, 3], [-7, 4]]))
    ],
    "rng": [{"dst": t(P, 10, dtype=int32)}, {"dst": t(P, 10, dtype=uint16), "engine": nisa.engine.gpsimd}],
    "rand2": [{**_DRAW, "min": low, "max": 4.0, "target": "trn3"} for low in (0.0, ROW)],
    "dropout": [{**_DRAW, "data": t(P, 10), "prob": prob} for prob in (0.5, ROW)],
    "set_rng_seed": [{"src_seeds": t(1, 1, dtype=uint32)}],
    "rand_set_state": [{"src_seeds": t(P, 6, dtype=uint32)}],
    "rand_get_state": [{"dst": t(P, 6, dtype=uint32)}],
    "quantize_mx": [
        {**_QUANTIZE, "target": "trn3"},
        {"dst": t(64, 4, dtype=_E5M2), "src": t(64, 16, dtype=float16), "dst_scale": t(40, 4, dtype=_SCALE),
         "target": "trn3"},
    ],
    "nc_matmul": [
        _MATMUL, {**_MATMUL, "accumulate": True}, {**_MATMUL, "stationary": t(16, 8, dtype=bfloat16),
                                                   "moving": t(16, 12, dtype=dtypes.float8_e5m2)},
        {**_MATMUL, "stationary": t(16, 2, 8, dtype=dtypes.float8_e4m3),
         "moving": t(16, 2, 12, dtype=dtypes.float8_e4m3), "perf_mode": nisa.matmul_perf_mode.double_row},
        {**_MATMUL, "is_transpose": True, "moving": t(16, 12, below=2)},
    ],
    "nc_matmul_sparse": [
        {"dst": t(16, 10).psum, "moving": t(8, 4, 2, 5, dtype=bfloat16), "stationary": t(8, 16, dtype=float16),
         "tag": t(8, 4, dtype=uint16, below=1 << 16), "compress_ratio": 4, "accumulate": adds} for adds in (False, True)
    ],
    "nc_matmul_mx": [
        {"dst": t(4, 6).psum, "stationary": t(64, 4, dtype=_E4M3), "moving": t(64, 6, dtype=_E5M2),
         "stationary_scale": t(40, 4, dtype=uint8, low=126, below=129),
         "moving_scale": t(36, 6, dtype=uint8, low=126, below=129),
         "accumulate": accumulate, "target": "trn3"} for accumulate in (False, True)
    ],
    "nc_transpose": [{"dst": t(F, P, dtype=d).psum, "data": t(P, 4, 10, dtype=d)} for d in _NARROW]
    + [{"dst": t(F, P).psum, "data": t(P, F, dtype=bfloat16), "target": "trn1"}],
    "dma_copy": [
        {"dst": t(*to, dtype=d), "src": t(*shape, dtype=s).hbm}
        for d, s in ((float32, float32), (uint8, uint8), (bfloat16, float32), (_E4M3, _E4M3))
        for to, shape in (((P, 4, 10), (P, 40)), ((8, 30), (P, 4, 10)), ((120,), (120,)))
    ],
    "dma_transpose": [
        {"dst": t(*reversed(shape), dtype=d), "src": t(*shape, dtype=d).hbm}
        for d in (float32, uint8) for shape in ((6, 10), (3, 4, 5))
    ] + [{"dst": t(5, 4, 2, 3), "src": t(3, 4, 2, 5)}],
    "dma_compute": [
        {"dst": t(P, F, dtype=bfloat16).hbm, "srcs_0": shape, "srcs_1": WIDE.hbm, "srcs_2": WIDE, "reduce_op": nl.add}
        for shape in (FREE, t(8, 30))
    ],
}  # fmt: skip


def make(name: str, option: dict[str, Any], seed: int = 0) -> Call:
    given = dict(option)
    return Call(name, given, given.pop("target", "trn2"), seed)


def calls(name: str) -> Iterator[tuple[Call, Call]]:
    """Every call of an instruction, twice: the second has other values."""
    for option in CALLS[name]:
        yield make(name, option), make(name, option, seed=1)


def test_every_instruction_is_tried_or_says_why_nothing_is_known_of_it():
    for name, definition in REGISTRY.items():
        if name not in CALLS:
            assert definition.rule("access")(None).reason


@pytest.mark.parametrize("name", sorted(CALLS))
def test_slices_along_parallel_loops(name):
    for call, _ in calls(name):
        whole = call.results(call.arrays)
        for loop, n in call.loops(Kind.parallel):
            for first, end in ((0, n // 2), (n // 2, n), (n - 1, n)):
                part = call.results({o: call.cut(o, a, loop, first, end) for o, a in call.arrays.items()})
                for operand, found in part.items():
                    call.same_part(operand, found, whole[operand], loop, first, end)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_sequential_loops_depend_on_nothing_that_follows(name):
    for call, other in calls(name):
        whole = call.results(call.arrays)
        for loop, n in call.loops(Kind.sequential):
            for at in {n // 2, n - 1}:
                arrays = {o: _mixed(call, o, loop, at, n, a, other.arrays[o]) for o, a in call.arrays.items()}
                for operand, found in call.results(arrays).items():
                    call.same_part(operand, call.cut(operand, found, loop, 0, at), whole[operand], loop, 0, at)


def _mixed(
    call: Call, operand: str, loop: str, first: int, end: int, array: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """An operand with other values at some positions of a loop."""
    access = call.signature.access
    if not access.runs_over(operand, loop):
        return array
    if operand == "registers":
        return np.concatenate([array[:first], other[first:end], array[end:]])
    axis = [term.loop for term in access.dimensions(operand)].index(loop)
    index = (slice(None),) * axis + (slice(first, end),)
    mixed = array.copy().reshape(access.shape(operand))
    mixed[index] = other.reshape(access.shape(operand))[index]
    return mixed.reshape(array.shape)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_placed_loops_depend_on_nothing_elsewhere(name):
    for call, other in calls(name):
        whole = call.results(call.arrays)
        for loop, n in call.loops(Kind.placed):
            half = n // 2
            first, all_of_it = (
                {o: _mixed(call, o, loop, at, n, a, other.arrays[o]) for o, a in call.arrays.items()}
                for at in (half, 0)
            )
            found, mixed = call.results(first), call.results(all_of_it)
            for operand in found:
                for expected, part in ((whole, (0, half)), (mixed, (half, n))):
                    got = call.cut(operand, found[operand], loop, *part)
                    call.same_part(operand, got, expected[operand], loop, *part)


@pytest.mark.parametrize("name", sorted(CALLS))
def test_what_is_only_written_is_not_read(name):
    for call, other in calls(name):
        unread = {o: other.arrays[o] for o in call.written if o not in call.read}
        whole = call.results(call.arrays)
        for operand, found in call.results({**call.arrays, **unread}).items():
            same_bits(found, whole[operand], f"{call} {operand}")


@pytest.mark.parametrize("name", sorted(CALLS))
def test_loops_are_of_what_is_written(name):
    """A claim about a loop that makes nothing could not be wrong, and what is combined is in no result."""
    for call, _ in calls(name):
        for loop in call.signature.access.extents:
            kind, own = call.signature.access.kind(loop), call.runs_over_written(loop)
            assert kind is Kind.whole or own == (kind is not Kind.combined), f"{call}: {loop} is {kind.value}"


COMBINED = {
    "activate2", "activation", "activation_reduce", "exponential", "nc_matmul", "range_select", "select_reduce",
    "tensor_partition_reduce", "tensor_reduce", "tensor_scalar_reduce",
}


@pytest.mark.parametrize("name", sorted(CALLS))
def test_reduced_loops_combine(name):
    proven = [_proven(make(name, option)) for option in CALLS[name]]
    assert any(proven) == (name in COMBINED)


def _proven(call: Call) -> bool:
    """Whether there are loops whose positions combine: halves of them make, together, what all of them make."""
    loops = [loop for kind in (Kind.parallel, Kind.placed, Kind.combined) for loop, _ in call.loops(kind)]
    claimed = {(o, loop) for o in call.tiles_written for loop in call.signature.access.reduced(o) if loop in loops}
    arguments = call.signature.arguments
    op = arguments.get("reduce_op") or arguments.get("op", ADD)
    exact = arguments.get("is_transpose") or arguments.get("perf_mode") is nisa.matmul_perf_mode.double_row
    if op in COMBINING and not exact and call.signature.definition.name in COMBINED and not claimed:
        claimed = {(o, loop) for o in call.tiles_written for loop in call.signature.access.reduced(o)}
    for operand, loop in claimed:
        assert op in COMBINING, f"{call}: {loop} is not combined by {op}"
        expected = call.results(call.arrays)[operand].astype(np.float64)
        np.testing.assert_allclose(_in_halves(call, operand, loop, op.numpy), expected, rtol=1e-5, err_msg=str(call))
    return bool(claimed)


def _in_halves(call: Call, operand: str, loop: str, combine: Callable) -> np.ndarray:
    """An operand as two halves of a loop make it: the second goes on where the first one ends."""
    half, n = call.signature.access.extents[loop] // 2, call.signature.access.extents[loop]
    if call.signature.access.kind(loop) is Kind.placed:  # where a half begins matters: the other one gives nothing
        nothing = {o: np.full_like(a, -np.inf) for o, a in call.arrays.items() if a.dtype.kind == "f"}
        parts = [
            {o: _mixed(call, o, loop, *place, a, nothing.get(o, a)) for o, a in call.arrays.items()}
            for place in ((half, n), (0, half))
        ]
    else:
        parts = [{o: call.cut(o, a, loop, *p) for o, a in call.arrays.items()} for p in ((0, half), (half, n))]
    first = call.results(parts[0])
    continued = call.signature.arguments.get("reduce_cmd") in _ADDING
    kept = {o: first[o] for o in (operand, "registers") if o in call.read}
    second = call.results({**parts[1], **kept}, **({"reduce_cmd": _command.reduce} if continued else {}))
    found = second[operand] if continued or operand in kept else combine(first[operand], second[operand])
    result: np.ndarray = found.astype(np.float64)
    return result


MOVES = ("tensor_copy", "dma_copy", "dma_transpose", "nc_transpose", "set_rounding")


@pytest.mark.parametrize("name", sorted(CALLS))
def test_moves_keep_bits(name):
    """Elements arrive where the rule says, and with all bits where the dtypes agree: NaN and all."""
    for option in CALLS[name]:
        call = make(name, option)
        access = call.signature.access
        assert (access.move is not None) == (name in MOVES)
        if access.move is None:
            continue
        target, source = access.move
        to = call.arrays[target]
        if access.order is not None:
            raw = np.random.default_rng(0).integers(0, 256, bits(call.arrays[source]).nbytes, np.uint8)
            call.arrays[source] = raw.view(to.dtype).reshape(call.arrays[source].shape)
        names = [[term.loop for term in access.dimensions(o)] for o in access.move]
        moved = call.arrays[source].reshape(access.shape(source)).transpose([names[1].index(n) for n in names[0]])
        written, read = (call.signature.arguments[o].dtype for o in access.move)
        expected = dtypes.cast(Elements(moved, read), written)
        same_bits(call.results(call.arrays)[target], expected, name)


# --- the text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["p f dst[p f]", "p: dst[p f", "p: dst[p] dst[p]", "q: dst[p]", "p: dst[p] data[p] = more[p]", "p at last: dst[p]",
     "p: dst[(p q)]", "p: dst[P]"],
)  # fmt: skip
def test_malformed_rules(text):
    with pytest.raises(ValueError, match="access rule"):
        parse(text)


def test_operands_that_do_not_fit_the_rule():
    dst, data = (ViewType.dense(MemoryRegion.sbuf, float32, shape) for shape in ((4, 3), (6, 3)))
    with pytest.raises(ValueError, match="p=4 where an operand has 6"):
        AccessMap(parse("p f: dst[p f] data[p f]"), {"dst": dst, "data": data}, ["dst"])
    with pytest.raises(ValueError, match="how data is used"):
        AccessMap(parse("p f: dst[p f]"), {"dst": dst, "data": dst}, ["dst"])
