"""nc_matmul and nc_transpose: limits and messages, and the modelled cost."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite import errors
from nkilite.machine.target import get_target
from nkilite.trace import active
from nkilite.trace.builder import TraceBuilder


def failing(
    body: Callable, error: type[errors.NkiError], *words: str, target: str = "trn2", monkeypatch
) -> None:
    """`body` must raise `error` naming all `words`, located at its own first line."""
    monkeypatch.setenv("NEURON_PLATFORM_TARGET_OVERRIDE", target)

    def kernel(x):
        body()
        return x

    with pytest.raises(error) as caught:
        nki.jit(kernel)(np.zeros((1, 1), np.float32))
    assert caught.value.location.line == body.__code__.co_firstlineno
    assert caught.value.location.file == __file__
    for word in words:
        assert word in str(caught.value), str(caught.value)


def sb(*shape, dtype="float32"):
    return nl.ndarray(shape, dtype, buffer=nl.sbuf)


def ps(*shape, dtype="float32"):
    return nl.ndarray(shape, dtype, buffer=nl.psum)


MATMUL_ERRORS = {
    "dst in sbuf": (
        lambda: nisa.nc_matmul(sb(4, 8), sb(16, 4), sb(16, 8)),
        errors.WrongMemory,
        "dst",
        "SBUF",
        "PSUM",
    ),
    "moving in psum": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), ps(16, 8)),
        errors.WrongMemory,
        "moving",
        "PSUM",
    ),
    "partitions": (lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(12, 8)), errors.ShapeMismatch, "16", "12"),
    "stationary": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 129), sb(16, 8)),
        errors.FreeSizeExceeded,
        "129",
        "128",
    ),
    "moving": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 513)),
        errors.FreeSizeExceeded,
        "513",
        "512",
    ),
    "result": (
        lambda: nisa.nc_matmul(ps(4, 9), sb(16, 4), sb(16, 8)),
        errors.ShapeMismatch,
        "(4, 9)",
        "8 elements",
    ),
    "integers": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4, dtype="int32"), sb(16, 8, dtype="int32")),
        errors.UnsupportedDtype,
        "int32",
        "bfloat16",
    ),
    "fp8 of trn3": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4, dtype="float8_e4m3fn"), sb(16, 8, dtype="float8_e4m3fn")),
        errors.UnsupportedDtype,
        "float8_e4m3fn",
        "trn2",
    ),
    "float32 and bfloat16": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 8, dtype="bfloat16")),
        errors.DtypeMismatch,
        "float32",
        "bfloat16",
    ),
    "bfloat16 result": (
        lambda: nisa.nc_matmul(ps(4, 8, dtype="bfloat16"), sb(16, 4), sb(16, 8)),
        errors.UnsupportedDtype,
        "dst",
        "bfloat16",
        "float32",
    ),
    "tile size": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 8), tile_position=(0, 0), tile_size=(48, 128)),
        errors.InvalidOperand,
        "(48, 128)",
        "32, 64, 128",
    ),
    "tile position": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 8), tile_position=(16, 0), tile_size=(32, 128)),
        errors.InvalidOperand,
        "(16, 0)",
        "(32, 128)",
    ),
    "tile without size": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 8), tile_position=(0, 0)),
        errors.InvalidOperand,
        "tile_size",
        "()",
    ),
    "partitions of a tile": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(40, 4), sb(40, 8), tile_position=(0, 0), tile_size=(32, 32)),
        errors.PartitionLimitExceeded,
        "40",
        "32",
    ),
    "columns of a tile": (
        lambda: nisa.nc_matmul(ps(33, 8), sb(32, 33), sb(32, 8), tile_position=(0, 0), tile_size=(32, 32)),
        errors.FreeSizeExceeded,
        "33",
        "32",
    ),
    "perf mode": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 8), perf_mode="fast"),
        errors.InvalidOperand,
        "'fast'",
        "double_row",
    ),
    "double row dtype": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 2, 4), sb(16, 2, 8), perf_mode="double_row"),
        errors.UnsupportedDtype,
        "float32",
        "float8_e4m3",
    ),
    "double row shape": (
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 2, 8), perf_mode="double_row"),
        errors.ShapeMismatch,
        "(16, 4)",
        "[partitions, 2, columns]",
    ),
    "double row transpose": (
        lambda: nisa.nc_matmul(
            ps(4, 8), sb(16, 2, 4), sb(16, 2, 8), is_transpose=True, perf_mode="double_row"
        ),
        errors.InvalidOperand,
        "is_transpose",
        "double_row",
    ),
    "accumulated transpose": (
        lambda: nisa.nc_matmul(ps(4, 16), sb(16, 4), sb(16, 16), is_transpose=True, accumulate=True),
        errors.InvalidOperand,
        "accumulate",
        "True",
    ),
    "converting transpose": (
        lambda: nisa.nc_matmul(
            ps(4, 16, dtype="bfloat16"),
            sb(16, 4, dtype="float16"),
            sb(16, 16, dtype="float16"),
            is_transpose=True,
        ),
        errors.UnsupportedDtype,
        "dst",
        "bfloat16",
        "float16",
    ),
}


@pytest.mark.parametrize("name", list(MATMUL_ERRORS))
def test_matmul_errors(name, monkeypatch):
    body, error, *words = MATMUL_ERRORS[name]
    failing(body, error, *words, monkeypatch=monkeypatch)


def test_mixed_e4m3_formats_on_trn3(monkeypatch):
    failing(
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4, dtype="float8_e4m3"), sb(16, 8, dtype="float8_e4m3fn")),
        errors.DtypeMismatch,
        "float8_e4m3fn",
        target="trn3",
        monkeypatch=monkeypatch,
    )


def test_double_row_needs_trn2(monkeypatch):
    failing(
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 2, 4), sb(16, 2, 8), perf_mode="double_row"),
        errors.UnsupportedOnTarget,
        "trn1",
        "trn2",
        target="trn1",
        monkeypatch=monkeypatch,
    )


def test_moving_limits_on_trn3(monkeypatch):
    failing(
        lambda: nisa.nc_matmul(ps(4, 8), sb(16, 4), sb(16, 4097)),
        errors.FreeSizeExceeded,
        "4097",
        "4096",
        target="trn3",
        monkeypatch=monkeypatch,
    )


TRANSPOSE_ERRORS = {
    "tensor engine into sbuf": (
        lambda: nisa.nc_transpose(sb(64, 64), sb(64, 64)),
        errors.WrongMemory,
        "dst",
        "PSUM",
    ),
    "vector engine size": (
        lambda: nisa.nc_transpose(ps(20, 33), sb(33, 20), engine=nisa.engine.vector),
        errors.PartitionLimitExceeded,
        "33",
        "32",
    ),
    "free size": (lambda: nisa.nc_transpose(ps(128, 64), sb(64, 129)), errors.FreeSizeExceeded, "129", "128"),
    "shape": (
        lambda: nisa.nc_transpose(ps(64, 64), sb(64, 60)),
        errors.ShapeMismatch,
        "(64, 64)",
        "60 partitions",
    ),
    "dtype": (
        lambda: nisa.nc_transpose(ps(60, 64, dtype="bfloat16"), sb(64, 60)),
        errors.DtypeMismatch,
        "bfloat16",
        "float32",
    ),
    "engine": (
        lambda: nisa.nc_transpose(ps(60, 64), sb(64, 60), engine=nisa.engine.scalar),
        errors.UnsupportedEngine,
        "scalar",
        "tensor",
    ),
}


@pytest.mark.parametrize("name", list(TRANSPOSE_ERRORS))
def test_transpose_errors(name, monkeypatch):
    body, error, *words = TRANSPOSE_ERRORS[name]
    failing(body, error, *words, monkeypatch=monkeypatch)


# --- modelled cost ------------------------------------------------------------------------------------------


def cycles(body: Callable, target: str = "trn2") -> float:
    """The modelled cycles of the last instruction of a kernel."""
    builder = TraceBuilder("cost", get_target(target))
    with active.activate(builder):
        body()
    call = builder.program.signatures[-1]
    return call.definition.rule("cost")(call).cycles


def test_costs_follow_the_published_formulas():
    def bf16(*shape):
        return sb(*shape, dtype="bfloat16")

    def fp8(*shape):
        return sb(*shape, dtype="float8_e5m2")

    assert cycles(lambda: nisa.nc_matmul(ps(128, 512), bf16(128, 128), bf16(128, 512))) == 512
    assert cycles(lambda: nisa.nc_matmul(ps(128, 16), bf16(128, 128), bf16(128, 16))) == 64
    assert cycles(lambda: nisa.nc_matmul(ps(128, 512), sb(128, 128), sb(128, 512))) == 4 * 512
    assert (
        cycles(lambda: nisa.nc_matmul(ps(128, 512), sb(128, 128), sb(128, 512), is_stationary_onezero=True))
        == 2 * 512
    )
    assert (
        cycles(
            lambda: nisa.nc_matmul(ps(128, 512), fp8(128, 2, 128), fp8(128, 2, 512), perf_mode="double_row")
        )
        == 512
    )
    assert cycles(lambda: nisa.nc_transpose(ps(128, 128), sb(128, 128))) == 2 * 128
    sustained = get_target("trn1").tensor_sustained_rate
    assert cycles(lambda: nisa.nc_transpose(ps(128, 128), sb(128, 128)), "trn1") == 4 * 128 / sustained
