"""Random calls of every instruction, mostly wrong: each must run alike in both modes, or raise an error of ours.

`PYTHONPATH=. python tests/errors/errors_fuzz.py 10000 [instruction...]` runs many more than the test suite does.
"""

from __future__ import annotations

import inspect
import math
import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from errors_testing import MODES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.dtypes import ALL
from nkilite.errors import InternalError, NkiError
from nkilite.ir.definition import REGISTRY, Parameter, Role

INSTRUCTIONS = [d for name, d in REGISTRY.items() if hasattr(nisa, name)]

_MEMORIES = (nl.sbuf, nl.sbuf, nl.sbuf, nl.psum, nl.shared_hbm)
_SHAPES = (
    (32, 8), (32, 1), (32, 2), (1, 8), (8, 32), (32, 2, 4), (32, 16), (128, 128), (4, 3, 2, 5), (16, 40), (64, 6),
)
_VIEWS = ("whole", "whole", "step", "column", "row", "repeat", "swap")
_JUNK = (None, 0, 1, -3, 2.5, True, "add", "x", (), (1, 0), [[1, 8]], {}, b"", nl.float32, np.ones(2), nl.add, object)
_NUMBERS = (0, 1, -2, 3, 0.5, -1.5, float("inf"), float("nan"), 1e30, 1 << 40, True, np.float32(2.0))
_OPERATORS = (
    nl.add, nl.subtract, nl.multiply, nl.divide, nl.maximum, nl.minimum, nl.power, nl.mod, nl.bitwise_and,
    nl.left_shift, nl.logical_or, nl.equal, nl.less, nl.abs, nl.exp, nl.tanh, nl.rsqrt, nl.sqrt, nl.copy, nl.bypass,
    np.add, np.exp, "average", None,
)
_FUNCTIONS = (nl.exp, nl.tanh, nl.copy, nl.relu, nl.gelu, nl.rsqrt, nl.sqrt, nl.square, nl.add, np.exp, "sigmoid")
_CHOICES: dict[str, tuple[Any, ...]] = {
    "engine": tuple(nisa.engine),
    "reduce_cmd": tuple(nisa.reduce_cmd),
    "dge_mode": tuple(nisa.dge_mode),
    "oob_mode": tuple(nisa.oob_mode),
    "perf_mode": tuple(nisa.matmul_perf_mode),
    "axis": (1, -1, 0, 2, (1, 2), [2, 1], (0, 1)),
    "axes": (None, (1, 0), (2, 1, 0), (0, 1)),
    "pattern": ([[1, 8]], [[1, 2], [0, 4]], [[-1, 8]], [[3, 2], [1, 2], [2, 2]], [[1, 1]]),
    "channel_multiplier": (0, 1, -1, 1 << 31),
    "tile_position": ((), (0, 0), (32, 0), (0, 64), (1, 1)),
    "tile_size": ((), (32, 32), (64, 64), (128, 128), (3, 3)),
    "accumulate": (None, True, False),
    "shuffle_mask": ([0] * 32, list(range(32)), [255] * 32, [31, 1]),
    "on_false_value": (-3.4028234663852886e38, 0.0),
    "priority": (None, 0, 9),
    "n": (8, 42, 7),
    "num_elem_per_idx": (1, 2, 3),
    "num_valid_indices": (None, 16, 0),
}


class Tile(NamedTuple):
    """A tensor argument: what it is a view of, and how."""

    memory: Any
    shape: tuple[int, ...]
    dtype: str
    view: str


class Register(NamedTuple):
    """A register argument."""

    value: int


class Call(NamedTuple):
    """An instruction, its arguments by name, and the chip."""

    name: str
    arguments: dict[str, Any]
    target: str


def _rows(columns: int, dtype: str = "") -> Callable[[Tile], Tile]:
    """A tile of that many elements for each partition of the common one."""
    return lambda t: t._replace(shape=(t.shape[0], columns), dtype=dtype or t.dtype)


# Operands that fit a call only in a shape or dtype of their own, given what the other operands are.
_FITTING: dict[tuple[str, str], Callable[[Tile], Tile]] = {
    ("", "bound0"): _rows(1, "float32"),
    ("", "bound1"): _rows(1, "float32"),
    ("", "dst_idx"): _rows(8, "uint32"),
    ("", "predicate"): lambda t: t._replace(dtype="uint8"),
    ("", "reduce_res"): _rows(1, "float32"),
    ("", "vals"): _rows(8),
    ("bn_aggr", "dst"): _rows(2),
    ("bn_stats", "dst"): _rows(6),
    ("dma_transpose", "dst"): lambda t: t._replace(shape=t.shape[::-1]),
    ("max8", "dst"): _rows(8),
    ("nc_find_index8", "dst"): _rows(8, "uint32"),
    ("nc_matmul", "dst"): lambda t: Tile(nl.psum, (math.prod(t.shape[1:]),) * 2, "float32", "whole"),
    ("nc_transpose", "dst"): lambda t: t._replace(shape=(math.prod(t.shape[1:]), t.shape[0])),
    ("register_load", "src"): lambda t: t._replace(shape=(1, 1), dtype="int32"),
    ("register_store", "dst"): lambda t: t._replace(shape=(1, 1), dtype="int32"),
    ("tensor_partition_reduce", "dst"): lambda t: t._replace(shape=(1, *t.shape[1:])),
    ("tensor_reduce", "dst"): _rows(1),
}


@st.composite
def calls(draw: Any, definitions: list | None = None) -> Call:
    """Calls that agree in shape, dtype and memory more often than chance would have them."""
    definition = draw(st.sampled_from(definitions or INSTRUCTIONS))
    memory, shape = draw(st.sampled_from(_MEMORIES)), draw(st.sampled_from(_SHAPES))
    common = Tile(memory, shape, draw(st.sampled_from(list(ALL))), "whole")
    if draw(st.booleans()):
        common = common._replace(memory=nl.sbuf, dtype=draw(st.sampled_from(["float32", "bfloat16", "int32", "uint8"])))
    arguments = {}
    for parameter in definition.parameters:
        required = parameter.default is inspect.Parameter.empty
        if draw(st.integers(0, 39 if required else 2)) == 2:
            continue
        value = draw(_argument(definition.name, parameter, common))
        if parameter.written and isinstance(value, Tile) and value.view == "repeat":
            value = value._replace(view="whole")  # which of several writes to an element stays is not defined
        arguments[parameter.name] = value
    return Call(definition.name, arguments, draw(st.sampled_from(["trn1", "trn2", "trn3"])))


def _argument(instruction: str, parameter: Parameter, common: Tile) -> st.SearchStrategy:
    fitting = _FITTING.get((instruction, parameter.name)) or _FITTING.get(("", parameter.name))
    if parameter.register:
        good: st.SearchStrategy = st.builds(Register, st.integers(-2, 40))
    elif parameter.role is Role.attribute:
        good = _attribute(instruction, parameter)
    elif parameter.role is Role.immediate:
        good = st.sampled_from(_NUMBERS)
    else:
        good = _tile(common)
        if parameter.role is Role.scalar_or_tensor:
            vector = st.just(common._replace(shape=(common.shape[0], 1)))
            good = st.one_of(good, st.sampled_from(_NUMBERS), vector)
        if fitting is not None:
            good = st.one_of(st.just(fitting(common)), st.just(fitting(common)), good)
    return st.integers(0, 19).flatmap(lambda n: st.sampled_from(_JUNK) if n == 7 else good)


def _tile(common: Tile) -> st.SearchStrategy:
    other = st.builds(
        Tile, st.sampled_from(_MEMORIES), st.sampled_from(_SHAPES), st.sampled_from(list(ALL)), st.sampled_from(_VIEWS)
    )
    reduced = st.sampled_from([(common.shape[0], 1), common.shape[::-1], (common.shape[0], 8), (1, *common.shape[1:])])
    near = st.one_of(
        st.just(common),
        st.sampled_from(_VIEWS).map(lambda v: common._replace(view=v)),
        st.sampled_from(_MEMORIES).map(lambda m: common._replace(memory=m)),
        st.sampled_from(list(ALL)).map(lambda d: common._replace(dtype=d)),
        reduced.map(lambda s: common._replace(shape=s)),
    )
    return st.integers(0, 9).flatmap(lambda n: other if n == 3 else st.just(common) if n % 2 else near)


def _attribute(instruction: str, parameter: Parameter) -> st.SearchStrategy:
    if parameter.name in _CHOICES:
        return st.sampled_from(_CHOICES[parameter.name])
    if isinstance(parameter.default, bool):
        return st.booleans()
    if instruction.startswith("activat") and parameter.name == "op":
        return st.sampled_from(_FUNCTIONS)
    if parameter.name.startswith(("cmp_", "comp_")):
        return st.sampled_from((nl.equal, nl.less, nl.greater_equal, nl.add))
    if parameter.name == "reduce_op":
        return st.sampled_from((nl.add, nl.maximum, nl.minimum, nl.multiply))
    return st.one_of(st.sampled_from(_OPERATORS[:6]), st.sampled_from(_OPERATORS))


def run(call: Call) -> str:
    """Run a call in both modes; returns the class of the error, or "ran".

    Raises:
        AssertionError: an error that is not ours, different errors, or different results.
    """
    tiles = {n: a for n, a in call.arguments.items() if isinstance(a, Tile)}
    arrays = [_values(tile, seed) for seed, tile in enumerate(tiles.values())]

    def kernel(*inputs: Any) -> Any:
        made = {n: _made(tile, x) for (n, tile), x in zip(tiles.items(), inputs, strict=True)}
        views = {n: _view(tensor, tiles[n].view) for n, tensor in made.items()}
        registers = {n: nisa.register_alloc(a.value) for n, a in call.arguments.items() if isinstance(a, Register)}
        getattr(nisa, call.name)(**{**call.arguments, **views, **registers})
        return [_stored(tensor) for tensor in made.values()]

    outcomes = {}
    for mode, launch in MODES.items():
        try:
            with patch.dict(os.environ, NEURON_PLATFORM_TARGET_OVERRIDE=call.target):
                outcomes[mode] = launch(kernel)(*(a.copy() for a in arrays))
        except NkiError as error:
            assert not isinstance(error, InternalError), error
            assert "{" not in error.template.format(**error.fields).replace("{}", ""), error
            outcomes[mode] = error
    simulated, compiled = outcomes.values()
    if isinstance(simulated, NkiError) or isinstance(compiled, NkiError):
        assert type(simulated) is type(compiled), f"simulate: {simulated}\ncompiled: {compiled}"
        assert str(simulated) == str(compiled)
        return type(simulated).__name__
    for left, right in zip(simulated, compiled, strict=True):
        _agree(left, right)
    return "ran"


def _values(tile: Tile, seed: int) -> np.ndarray:
    dtype = ALL[tile.dtype].numpy
    rng = np.random.default_rng(seed)
    return rng.integers(0, 4, tile.shape).astype(np.float32).astype(dtype)


def _made(tile: Tile, x: Any) -> Any:
    """The tensor of an argument, with the values of an input array."""
    dtype = ALL[tile.dtype]
    if tile.memory is nl.shared_hbm:
        return x.view(dtype)
    tensor = nl.ndarray(x.shape, dtype=dtype, buffer=nl.sbuf)
    nisa.dma_copy(tensor, x.view(dtype))
    if tile.memory is nl.psum:
        moved = nl.ndarray(x.shape, dtype=dtype, buffer=nl.psum)
        nisa.tensor_copy(moved, tensor)
        return moved
    return tensor


def _view(tensor: Any, view: str) -> Any:
    if view == "step":
        return tensor[:, ::2]
    if view == "column":
        return tensor[:, 0:1]
    if view == "row":
        return tensor[0:1]
    if view == "repeat":
        return tensor[:, 0:1].broadcast(1, tensor.shape[1])
    if view == "swap" and tensor.ndim > 2:
        return tensor.permute((0, 2, 1, *range(3, tensor.ndim)))
    return tensor


def _stored(tensor: Any) -> Any:
    if tensor.buffer is nl.psum:
        moved = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(moved, tensor)
        tensor = moved
    out = nl.ndarray(tensor.shape, dtype=tensor.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tensor)
    return out


def _agree(left: np.ndarray, right: np.ndarray) -> None:
    assert (left.dtype, left.shape) == (right.dtype, right.shape)
    a, b = left.astype(np.float64), right.astype(np.float64)
    # Transcendental functions and sums may differ in the last places, which a narrow type rounds to a neighbour.
    with np.errstate(invalid="ignore"):
        close = (a == b) | (np.isnan(a) & np.isnan(b)) | (np.abs(a - b) <= 1e-3 + 0.13 * np.abs(b))
        close |= (left.dtype.kind in "iu") & (np.abs(a - b) <= 1)
    assert close.all(), f"{a[~close][:4]} {b[~close][:4]}"


if __name__ == "__main__":
    chosen = [d for d in INSTRUCTIONS if len(sys.argv) < 3 or d.name in sys.argv[2:]]

    @settings(max_examples=int(sys.argv[1]), deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(calls(chosen))
    def main(call: Call) -> None:
        run(call)

    main()
