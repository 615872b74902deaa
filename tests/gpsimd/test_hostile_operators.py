"""Operators that do what they should not: errors of ours with what is wrong, and no end of the process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import nkilite as nki
import nkilite.language as nl
from nkilite import errors, gpsimd

MODES = {"simulate": nki.simulate, "compiled": nki.jit}
SOURCE = """\
#include <torch/torch.h>
using torch::Tensor;

void without_result(Tensor out, const Tensor& x, int8_t number) {
  if (number == 0) get_dst_tensor().fill_(1);
  out.fill_(number);
}
Tensor any(const Tensor& x, int64_t which) {
  Tensor none;
  float out[4];
  switch (which) {
    case 0: return torch::add(x, x);
    case 1: get_dst_tensor(), nkilite::fail("on purpose");
    case 2: return none;
    case 3: return none.fill_(1), torch::add(x, none);
    case 4: return torch::zeros({int64_t(1) << 33, int64_t(1) << 33}, torch::kFloat);
    case 5: return x.tcm_accessor().tensor_to_tcm<float>(out, size_t(-1), 2), x;
    case 6: return torch::ceil(torch::floor(x));
  }
  if (!torch::neuron::tcm_malloc(16 * 1024)) nkilite::fail("no memory is left");
  return x;
}
"""
SMALL = """\
#include <nkilite/gpsimd.h>
void twice(nkilite::Tensor out, const nkilite::Tensor& x) {
  for (int64_t i = 0; i < x.numel(); i++) out.pointer<float>()[i] = 2 * x.pointer<float>()[i];
}
void doubled(nkilite::Tensor out, const nkilite::Tensor& x) { twice(out, x); }
"""
X = np.arange(24, dtype=np.float32).reshape(4, 6)


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "hostile.cpp"
    path.write_text(SOURCE)
    return [gpsimd.operator(path, name) for name in ("any", "without_result")]


def run(mode, operator, *numbers, x=X, shape=None):
    """What an operator makes of a tile."""

    def kernel(x):
        tile, result = nl.load(x), nl.ndarray(x.shape, dtype=x.dtype)
        left, right = (t if shape is None else t.reshape(shape) for t in (result, tile))
        operator(left, right, *numbers)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, result)
        return out

    return MODES[mode](kernel)(x)


@pytest.mark.parametrize("mode", MODES)
def test_failures(operators, mode):
    any_of, without_result = operators
    says = {
        1: "on purpose", 2: "returns 0 elements", 3: "operands differ", 4: "too many elements", 5: "of a tensor of 24",
    }
    for which, message in says.items():
        for _ in range(2):
            with pytest.raises(errors.OperatorFailed, match=message):
                run(mode, any_of, which)
        with pytest.raises(errors.OperatorFailed, match="returns no tensor"):  # not that of one that has ended, either
            run(mode, without_result, 0)
    np.testing.assert_array_equal(run(mode, any_of, 0), 2 * X)


@pytest.mark.parametrize("mode", MODES)
def test_memory_that_is_not_given_back(operators, mode):
    for _ in range(3):
        np.testing.assert_array_equal(run(mode, operators[0], 7), X)


@pytest.mark.parametrize("mode", MODES)
def test_numbers(operators, mode):
    narrow = operators[1]
    assert run(mode, narrow, -128)[0, 0] == -128
    for number in (128, -129, 1 << 53):
        with pytest.raises(errors.OperatorFailed, match="does not fit"):
            run(mode, narrow, number)
    for number in (float("nan"), float("inf"), 0.5, (1 << 53) + 1):
        with pytest.raises(errors.InvalidOperand, match="whole number"):
            run(mode, narrow, number)


@pytest.mark.parametrize("mode", MODES)
def test_integers_are_whole_numbers(operators, mode):
    x = np.array([[(1 << 24) + 1, -7, 0, 3]], np.int32)  # of which float32 does not hold the first
    np.testing.assert_array_equal(run(mode, operators[0], 6, x=x), x)


@pytest.mark.parametrize("mode", MODES)
def test_more_dimensions_than_there_are(operators, mode):
    np.testing.assert_array_equal(run(mode, operators[0], 0, shape=(4, 1, 1, 1, 1, 1, 2, 3)), 2 * X)
    with pytest.raises(errors.ShapeMismatch, match="9 dimensions"):
        run(mode, operators[0], 0, shape=(4, 1, 1, 1, 1, 1, 1, 2, 3))


def test_a_process_with_another_operator(tmp_path):
    """Object code that refers to an operator is of no use to a process that has not loaded it."""
    source = tmp_path / "small.cpp"
    source.write_text(SMALL)
    script = f"""
import sys
import numpy as np
import nkilite as nki
import nkilite.language as nl
from nkilite import gpsimd

operator = gpsimd.operator({str(source)!r}, sys.argv[1])

@nki.jit
def kernel(x):
    tile, result = nl.load(x), nl.ndarray(x.shape, dtype=x.dtype)
    operator(result, tile)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, result)
    return out

x = np.ones((4, 6), np.float32)
assert (kernel(x) == 2).all()
"""
    environment = {**os.environ, "NKILITE_CACHE": "1", "NKILITE_CACHE_DIR": str(tmp_path)}
    for function in ("twice", "doubled"):
        command = [sys.executable, "-c", script, function]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
