"""nkilite.testing: tolerances that follow from a kernel, reports with remedies, the first difference of two runs."""

from __future__ import annotations

import traceback
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.ir.sums import longest_sum
from nkilite.runtime.observing import OneCoreObserved
from nkilite.testing import MismatchError, check, first_difference, make


@nki.jit
def product(lhsT, rhs):
    out = nl.ndarray((lhsT.shape[1], rhs.shape[1]), nl.float32, nl.shared_hbm)
    total = nl.ndarray(out.shape, nl.float32, nl.psum)
    for k in range(0, lhsT.shape[0], 128):
        nisa.nc_matmul(total, nl.load(lhsT[k : k + 128]), nl.load(rhs[k : k + 128]))
    nl.store(out, nl.copy(total))
    return out


@nki.jit
def cancelling(x):
    out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
    tile = nl.load(x)
    large = nl.add(tile, 300.0)
    nisa.tensor_scalar(tile, large, nl.subtract, 300.0, name="back")
    nl.store(out, tile)
    return out


def line_of(text: str) -> int:
    lines = Path(__file__).read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if text in line)


def test_longest_sum() -> None:
    lhs, rhs = make((384, 64), "float32"), make((384, 32), "float32", 1)
    assert longest_sum(product.trace(lhs, rhs)) == 384
    assert longest_sum(cancelling.trace(make((8, 8), "float32"))) == 1


def test_check_takes_the_reduction_from_the_kernel() -> None:
    lhs, rhs = make((384, 64), "float32"), make((384, 32), "float32", 1)
    check(product, lambda a, b: a.astype(np.float64).T @ b.astype(np.float64), lhs, rhs)
    with pytest.raises(MismatchError) as caught:
        check(product, lambda a, b: a.astype(np.float64).T @ b.astype(np.float64) * 1.0001, lhs, rhs)
    assert "fix" in str(caught.value) and 'between=("float32", "simulate")' in str(caught.value)
    shown = [f for f, _ in traceback.walk_tb(caught.tb) if not f.f_locals.get("__tracebackhide__")]
    assert {f.f_code.co_filename for f in shown} == {__file__}


def test_runs_that_agree() -> None:
    lhs, rhs = make((256, 64), "bfloat16"), make((256, 32), "bfloat16", 1)
    assert first_difference(product, lhs, rhs) is None
    assert first_difference(product, lhs, rhs, between=("float32", "simulate")) is None
    assert first_difference(cancelling, make((8, 8), "float32")) is None


def test_precision_is_lost_at_a_line() -> None:
    x = (np.arange(64).reshape(8, 8) / 64).astype(ml_dtypes.bfloat16)
    found = first_difference(cancelling, x, between=("float32", "simulate"))
    assert found is not None
    assert (found.instruction, found.name, found.operand) == ("tensor_scalar", "back", "dst")
    assert found.location.line == line_of('name="back"') and str(found.location) in str(found)
    at = float(x[found.element])
    assert found.values["float32"] == pytest.approx(at, abs=1e-4) and found.values["simulate"] in (0.0, 2.0)


def test_compiled_code_that_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = nisa.tensor_tensor.definition
    rule = definition.rules["reference"]
    monkeypatch.setitem(definition.rules, "reference", lambda call, **arrays: rule(call, **arrays) * 2)

    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, x.dtype, nl.shared_hbm)
        tile = nl.load(x)
        nisa.tensor_scalar(tile, tile, nl.multiply, 3.0)
        nisa.tensor_tensor(tile, tile, tile, op=nl.add)  # here
        nl.store(out, tile)
        return out

    found = first_difference(kernel, np.ones((4, 4), np.float32))
    assert found is not None and found.location.line == line_of("op=nl.add)  # here")
    assert found.values == {"simulate": 12.0, "compiled": 6.0}


def test_what_first_difference_refuses() -> None:
    x = make((8, 8), "float32")
    with pytest.raises(OneCoreObserved, match="2 cores"):
        first_difference(cancelling[2], x)
    with pytest.raises(ValueError, match="is not two of"):
        first_difference(cancelling, x, between=("simulate", "simulated"))
