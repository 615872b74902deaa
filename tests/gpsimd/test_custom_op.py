"""Operators in the form of the vendor's, on torch's tensors."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

import nkilite as nki
import nkilite.language as nl
from nkilite import gpsimd
from nkilite.errors import NoSuchFunction, NotAnOperatorLibrary, OperatorFailed, UnsupportedArrayDtype

torch = pytest.importorskip("torch", reason="torch is not installed")

TWICE = """\
#include <torch/torch.h>
#include <neuron/neuron-utils.hpp>

torch::Tensor twice(const torch::Tensor& x) {
  torch::Tensor out = get_dst_tensor();
  const size_t count = x.numel(), each = (count + get_cpu_count() - 1) / get_cpu_count();
  const size_t first = each * get_cpu_id(), end = first + each < count ? first + each : count;
  float* buffer = (float*)torch::neuron::tcm_malloc(64 * sizeof(float));
  if (torch::neuron::tcm_malloc(17 * 1024) != nullptr) nkilite::fail("more than there is");
  auto from = x.tcm_accessor();
  auto to = out.tcm_accessor();
  for (size_t i = first; i < end; i += 64) {
    const size_t n = end - i < 64 ? end - i : 64;
    from.tensor_to_tcm<float>(buffer, i, n);
    for (size_t j = 0; j < n; j++) buffer[j] *= 2;
    to.tcm_to_tensor<float>(buffer, i, n);
  }
  torch::neuron::tcm_free(buffer);
  return out;
}

torch::Tensor first(const torch::Tensor& x) {
  torch::Tensor out = torch::zeros({1}, torch::kFloat);
  out.accessor<float, 1>()[0] = x.accessor<float, 1>()[0];
  return out;
}
"""
COMPUTE = """\
#include <assert.h>
#include <stdio.h>
#include <torch/torch.h>

torch::Tensor plus(const torch::Tensor& a, const torch::Tensor& b, double scale) {
  assert(a.sizes() == b.sizes());
  torch::Tensor out = torch::zeros(a.sizes(), a.dtype());
  nkilite::dispatch(a.dtype(), [&](auto zero) {
    using T = decltype(zero);
    auto left = a.read_stream_accessor<T>(), right = b.read_stream_accessor<T>();
    auto result = out.write_stream_accessor<T>();
    for (int64_t i = 0; i < a.numel(); i++) result.write(T(left.read() + scale * right.read()));
  });
  return out;
}

torch::Tensor scores(const torch::Tensor& x) {
  torch::Tensor shifted = torch::sub(torch::mul(x, 2.0), torch::ones(x.sizes(), torch::kFloat));
  return torch::clamp(torch::exp(shifted), 0.5, 10);
}

torch::Tensor incoherent(const torch::Tensor& x) {
  torch::Tensor out = torch::empty(x.sizes(), torch::kFloat);
  auto one = out.write_stream_accessor<float>();
  auto other = out.read_stream_accessor<float>();
  return out;
}
"""
SHAPES = """\
#include <torch/torch.h>
#include "torchneuron/register.h"

torch::Tensor first(torch::Tensor a, torch::Tensor, double) { return torch::zeros(a.sizes(), a.scalar_type()); }
torch::Tensor same(torch::Tensor x) { return torch::zeros(x.sizes(), torch::kFloat); }

NEURON_LIBRARY(nkilite_test_ops, m) {
  m.def("plus", &first, "plus");
  m.def("scores", &same, "scores");
  m.def("incoherent", &same, "incoherent");
}
"""


TWICE_SHAPES = """\
#include "torchneuron/register.h"

torch::Tensor same(torch::Tensor x) { return torch::zeros(x.sizes(), torch::kFloat); }
torch::Tensor one(torch::Tensor) { return torch::zeros({1}, torch::kFloat); }

NEURON_LIBRARY(nkilite_test_cores, m) {
  m.def("twice", &same, "twice");
  m.def("first", &one, "first");
}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    found = tmp_path_factory.mktemp("library")
    (found / "compute.cpp").write_text(COMPUTE)
    (found / "shape.cpp").write_text(SHAPES)
    (found / "twice.cpp").write_text(TWICE)
    (found / "twice_shape.cpp").write_text(TWICE_SHAPES)
    return found


@pytest.fixture(scope="module")
def ops(folder):
    from nkilite.frameworks import custom_op

    custom_op.load(
        name="mine", compute_srcs=[folder / "compute.cpp"], shape_srcs=[folder / "shape.cpp"],
        build_directory=str(folder), extra_cflags=["-O1"],
    )
    return torch.ops.nkilite_test_ops


def test_streams_dtypes_and_numbers(ops):
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int32):
        a, b = torch.arange(24).reshape(4, 6).to(dtype), torch.arange(24).reshape(6, 4).to(dtype).t()
        assert torch.equal(ops.plus(a, b, 2.0), a + 2 * b)


def test_functions_of_tensors(ops):
    x = torch.randn(5, 7)
    torch.testing.assert_close(ops.scores(x), torch.exp(2 * x - 1).clamp(0.5, 10))


def test_without_memory(ops):
    found = ops.plus(torch.empty(3, 4, device="meta"), torch.empty(3, 4, device="meta"), 1.0)
    assert found.shape == (3, 4)


def test_failures(ops):
    with pytest.raises(OperatorFailed, match=r"assertion `a.sizes\(\) == b.sizes\(\)` failed at .*compute.cpp:6"):
        ops.plus(torch.ones(2, 2), torch.ones(2, 3), 1.0)
    with pytest.raises(OperatorFailed, match="a stream is opened on a tensor that an open stream writes"):
        ops.incoherent(torch.ones(2))
    with pytest.raises(UnsupportedArrayDtype, match="float64"):
        ops.scores(torch.ones(2, dtype=torch.float64))


def test_several_cores_have_tcm_alone(folder):
    from nkilite.frameworks import custom_op

    custom_op.load(
        name="cores", compute_srcs=[str(folder / "twice.cpp")], shape_srcs=[str(folder / "twice_shape.cpp")],
        multicore=True, build_directory=str(folder), extra_cflags=["-O1"],
    )
    ops = torch.ops.nkilite_test_cores
    x = torch.randn(3, 101)
    assert torch.equal(ops.twice(x), 2 * x)
    with pytest.raises(OperatorFailed, match="by its tcm_accessor alone"):
        ops.first(x[0])
    script = (  # another process loads the library, by the vendor's names
        "import nkilite.compat; nkilite.compat.install()\n"
        "import torch, torch_neuronx\nfrom torch_neuronx.xla_impl import custom_op\n"
        "custom_op.load_library('libcores.so')\nprint(torch.ops.nkilite_test_cores.twice(torch.ones(2)).tolist())\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[2.0, 2.0]"


def test_the_same_function_in_a_kernel(folder):
    twice = gpsimd.operator(folder / "twice.cpp", "twice", cores=8, debug=True)

    def kernel(x):
        tile = nl.load(x)
        twice(tile, tile)
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        nl.store(out, tile)
        return out

    x = np.random.default_rng(0).standard_normal((100, 7)).astype(np.float32)
    for run in (nki.jit, nki.simulate):
        np.testing.assert_array_equal(run(kernel)(x), 2 * x)


def test_libraries_that_are_none(folder, tmp_path):
    from nkilite.frameworks import custom_op

    with pytest.raises(NotAnOperatorLibrary, match=r"nowhere.so"):
        custom_op.load_library(str(tmp_path / "nowhere.so"))
    (tmp_path / "shape.cpp").write_text(TWICE_SHAPES.replace('"first"', '"absent"'))
    with pytest.raises(NoSuchFunction, match="absent"):
        custom_op.load(
            name="x", compute_srcs=[str(folder / "twice.cpp")], shape_srcs=[str(tmp_path / "shape.cpp")],
            extra_cflags=["-O0"],
        )
    assert not os.path.exists(tmp_path / "libx.so")
