"""The gallery's kernels for several ranks against their references: any number of ranks, one core or two, any ring."""

from __future__ import annotations

import importlib
import inspect

import numpy as np
import pytest

import nkilite as nki
from kernels import RANKED, Case
from nkilite.profiling.overlap import communication, exposed_us
from nkilite.testing import compare, make, tolerance

MODULES = {name: importlib.import_module(f"kernels.{name}") for name in RANKED}
CASES = [(name, i) for name in RANKED for i in range(len(MODULES[name].CASES))]


@pytest.fixture(autouse=True)
def _races_are_errors(monkeypatch):
    monkeypatch.setenv("NKILITE_RACES", "error")


def check(name: str, case: Case, ranks: int, cores: int = 1, mode: str = "compiled", ring: int = 0, **meta) -> None:
    module = MODULES[name]
    kernel = getattr(module, name)[cores]
    launch = nki.simulate(kernel) if mode == "simulate" else kernel
    arrays = module.inputs(dtype=case.dtype, seed=1, **case.shape)
    parts = module.shards(ranks, *arrays)
    options = {**case.options, **meta}
    found = module.joined(nki.ranks(ranks, lambda rank: launch(*parts[rank], ranks, **options), ring=ring))
    semantic = inspect.signature(module.reference).parameters
    expected = module.reference(*arrays, **{key: value for key, value in options.items() if key in semantic})
    rtol, atol = tolerance(found.dtype, inputs=[a.dtype for a in arrays], **module.tolerance(**case.shape))
    compare(found, expected, rtol=rtol, atol=atol * float(np.sqrt(np.mean(expected**2))), what=name)


@pytest.mark.parametrize("ranks", [2, 8])
@pytest.mark.parametrize("name", RANKED)
def test_any_number_of_ranks(name, ranks):
    check(name, MODULES[name].CASES[0], ranks, ring=1)


@pytest.mark.parametrize(("name", "number"), CASES, ids=[f"{n}-{i}" for n, i in CASES])
def test_on_two_cores(name, number):
    check(name, MODULES[name].CASES[number], 4, cores=2, ring=2)


SMALLER = {
    "tensor_parallel_mlp": Case({"tokens": 5, "H": 128, "F": 512}, "float32"),
    "all_gather_matmul": Case({"M": 20, "N": 12, "K": 128}, "float32"),
    "ring_attention": Case({"heads": 2, "S": 512, "D": 16}, "float32", {"causal": True}),
}


@pytest.mark.parametrize("ring", range(5))
@pytest.mark.parametrize("name", ["all_gather_matmul", "ring_attention"])
def test_rings_of_any_order(name, ring):
    check(name, SMALLER[name], 4, ring=ring)


@pytest.mark.parametrize("cores", [1, 2])
@pytest.mark.parametrize("name", RANKED)
def test_simulated(name, cores):
    check(name, SMALLER[name], 2, cores=cores, mode="simulate", ring=1)


@pytest.mark.parametrize("name", RANKED)
def test_the_ends_of_the_space_compute_the_same(name):
    space = MODULES[name].SPACE
    for point in (0, -1):
        check(name, SMALLER[name], 2, **{key: values[point] for key, values in space.items()})


def test_a_query_of_a_causal_ring_does_not_see_later_ranks():
    """Whatever later keys hold: even those whose scores would overflow."""
    module = MODULES["ring_attention"]
    q, k, v = module.inputs(heads=1, S=512, D=16)
    expected = module.reference(q[:, :256], k[:, :256], v[:, :256], causal=True)
    k[:, 256:] *= 1e4
    parts = module.shards(4, q, k, v)
    found = nki.ranks(4, lambda rank: module.ring_attention(*parts[rank], 4, causal=True), ring=3)
    np.testing.assert_allclose(np.concatenate(found[:2], axis=1), expected, rtol=1e-3, atol=1e-3)


def test_communication_hides_behind_enough_work():
    """Modelled: products of large chunks take longer than passing them on, and those of small ones do not."""
    kernel = MODULES["all_gather_matmul"].all_gather_matmul[2]
    large, small = (
        nki.profile(kernel, make((1024, 8192 // r), "bfloat16"), make((1024, n // r), "bfloat16"), r, target="trn2")
        for r, n in ((4, 16384), (16, 4096))
    )
    busy = sum(c.busy_us for c in communication(large))
    assert exposed_us(large) < 0.05 * busy
    assert exposed_us(small) > 0.1 * sum(c.busy_us for c in communication(small))


def test_what_they_refuse():
    attention, product = MODULES["ring_attention"], MODULES["all_gather_matmul"]
    with pytest.raises(AssertionError, match="at least 2"):
        product.all_gather_matmul(*product.inputs(M=8, N=8, K=128), 1, BUFFERS=1)
    q, k, v = attention.inputs(heads=1, S=128, D=16)
    with pytest.raises(AssertionError, match="one shape"):
        attention.ring_attention(q, k, np.concatenate([v, v]), 1)
