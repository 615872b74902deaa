"""Configurations in the manner of triton.autotune: chosen at the first launch for a key, pruned, remembered."""

from __future__ import annotations

import numpy as np
import pytest

import autotune
import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from autotune.errors import InvalidSpace, UnknownParameter
from autotune.triton import Config, pruned, space_of

CONFIGS = [
    Config({"CHUNK": 8, "MODE": "a"}),
    Config({"CHUNK": 64, "MODE": "b"}, num_warps=8),
    Config({"CHUNK": 5, "MODE": "a"}),
]


def body(x, bias, CHUNK=16, MODE="a"):
    assert x.shape[1] % CHUNK == 0, "CHUNK must divide the columns"
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    for start in range(0, x.shape[1], CHUNK):
        nisa.dma_copy(dst=out[:, start : start + CHUNK], src=x[:, start : start + CHUNK])
    return out


@pytest.fixture(autouse=True)
def unregistered():
    autotune.use(None)
    yield
    autotune.use(None)


def arrays(columns: int = 128, bias: int = 4) -> tuple[np.ndarray, np.ndarray]:
    return np.ones((128, columns), np.float32), np.ones((1, bias), np.float32)


def test_first_launch_of_a_key_tunes() -> None:
    database = autotune.Database(None)
    decorate = autotune.triton.autotune(CONFIGS, key=["x"], restore_value=["x"], objective="trn2", database=database)
    kernel = decorate(body)
    assert isinstance(kernel, nki.Kernel)
    np.testing.assert_array_equal(kernel(*arrays()), arrays()[0])
    assert len(database) == 3
    assert kernel.trace(*arrays()).count == 2
    assert kernel.trace(*arrays(bias=9)).count == 2
    assert len(database) == 3  # bias is not in the key
    assert kernel.trace(*arrays(), CHUNK=32).count == 4
    assert kernel.trace(*arrays(columns=40)).count == 5  # 64 does not divide 40
    assert len(database) == 6


def test_pruning() -> None:
    def divides(configs, named, **kw):
        return [c for c in configs if named["n"] % c.kwargs["CHUNK"] == 0]

    early = {"early_config_prune": divides}
    assert pruned(CONFIGS, {"n": 64}, early) == CONFIGS[:2]
    assert pruned(CONFIGS, {"n": 7}, early) == CONFIGS[:1]
    model = {"perf_model": lambda n, CHUNK, MODE: n / CHUNK, "top_k": 2}
    assert [c.kwargs["CHUNK"] for c in pruned(CONFIGS, {"n": 64}, model)] == [64, 8]
    assert len(pruned(CONFIGS, {"n": 64}, {**model, "top_k": 0.4})) == 1


def test_timing_is_in_milliseconds_as_in_triton(monkeypatch) -> None:
    seen = []

    def search(kernel, *, protocol, space, **options):
        seen.append(protocol)
        return autotune.search(kernel, space=space, **{**options, "objective": "trn2"})

    monkeypatch.setattr(autotune.triton, "search", search)
    decorate = autotune.triton.autotune(CONFIGS, key=["x"], reset_to_zero=["bias"], warmup=25, rep=100)
    decorate(body)(*arrays())
    (protocol,) = seen
    assert (protocol.warmup_seconds, protocol.seconds) == (0.025, 0.1)
    assert protocol.timeout == autotune.Protocol.timeout


def test_mistakes() -> None:
    with pytest.raises(InvalidSpace, match="no configurations"):
        space_of([])
    with pytest.raises(InvalidSpace, match="other parameters"):
        space_of([Config({"A": 1}), Config({"B": 1})])
    with pytest.raises(UnknownParameter, match="'y'"):
        autotune.triton.autotune(CONFIGS, key=["y"])(body)
    with pytest.raises(UnknownParameter, match="'z'"):
        autotune.triton.autotune(CONFIGS, key=["x"], reset_to_zero=["z"])(body)

    def required(x, CHUNK, MODE="a"):
        return x

    with pytest.raises(InvalidSpace, match="'CHUNK' needs a default"):
        autotune.triton.autotune(CONFIGS, key=["x"])(required)
