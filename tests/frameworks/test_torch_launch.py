"""Warm calls with torch's tensors: by their addresses, without copies, and with every check of the slow way."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import InvalidOutput, NonContiguousArgument, OverlappingArguments, UnsupportedArgument
from nkilite.frameworks import outline as outlines
from nkilite.frameworks import torch as operators
from nkilite.frameworks.torch import MissingGradient
from nkilite.native.executable import Executable
from nkilite.runtime import kernel as kernels
from nkilite.runtime.arguments import as_array

torch = pytest.importorskip("torch", reason="torch is not installed")

DTYPES = ["float32", "bfloat16", "float16", "float8_e4m3fn", "float8_e5m2", "int8", "int32", "int64"]


def copied(x, y=None):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return out


def added(x, by=1.0):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.tensor_scalar(tile, tile, nl.add, by)
    nl.store(out, tile)
    return out


def written(x, source):
    nisa.dma_copy(dst=x, src=source)


def parts(x):
    out = nl.ndarray((x.shape[0], x.shape[1]), dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=x)
    return {"tail": out[4:], "same": x, "whole": out, "number": 3}


@pytest.fixture
def x() -> Any:
    return torch.arange(128, dtype=torch.float32).reshape(16, 8) / 16


@pytest.fixture
def slow(monkeypatch) -> list[str]:
    """The kernels that were launched the slow way."""
    found: list[str] = []
    original = kernels.Kernel._run
    monkeypatch.setattr(
        kernels.Kernel, "_run", lambda self, *rest: (found.append(self.__name__), original(self, *rest))[1]
    )
    return found


@pytest.fixture
def addresses(monkeypatch) -> list[tuple[int, ...]]:
    """What entries into native code were given."""
    found: list[tuple[int, ...]] = []
    original = Executable.enter_at

    def enter_at(self, *addresses):
        found.append(addresses)
        return original(self, *addresses)

    monkeypatch.setattr(Executable, "enter_at", enter_at)
    return found


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_is_copied(dtype: str, x: Any, slow: list[str], addresses: list) -> None:
    kernel, values = nki.jit(copied), x.to(getattr(torch, dtype))
    assert as_array("x", values, "kernel").numpy.ctypes.data == values.data_ptr()
    kernel(values)
    found = kernel(values)
    assert slow == ["copied"]
    assert addresses == [(values.data_ptr(), found.data_ptr())]
    assert found.dtype == values.dtype
    assert torch.equal(found.view(torch.uint8), values.view(torch.uint8))
    out = torch.empty_like(values)
    for _ in range(2):
        assert kernel(values, out=out) is out
    assert slow == ["copied"] * 2
    assert addresses[-1] == (values.data_ptr(), out.data_ptr())
    assert torch.equal(out.view(torch.uint8), values.view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES)
def test_arguments_are_written_in_place(dtype: str, x: Any, slow: list[str]) -> None:
    kernel, values = nki.jit(written), x.to(getattr(torch, dtype))
    target = torch.zeros_like(values)
    for _ in range(3):
        target.view(torch.uint8).zero_()
        kernel(target, values)
        assert torch.equal(target.view(torch.uint8), values.view(torch.uint8))
    assert slow == ["written"]


def test_what_tells_calls_apart(x: Any, slow: list[str]) -> None:
    kernel = nki.jit(added)
    calls = [(x,), (x.bfloat16(),), (x[:8],), (x, 2.0), (x.numpy(),), (torch.nn.Parameter(x, requires_grad=False),)]
    for _ in range(2):
        for args in calls:
            found = kernel(*args)
            assert type(found) is (np.ndarray if isinstance(args[0], np.ndarray) else torch.Tensor)
            wanted = torch.as_tensor(args[0]).float() + (args[1] if args[1:] else 1.0)
            torch.testing.assert_close(torch.as_tensor(found), wanted.to(torch.as_tensor(found).dtype))
    assert len(slow) == len(calls) - 1  # parameters are tensors


def test_results_are_nested_as_the_kernel_returns_them(x: Any, slow: list[str]) -> None:
    kernel = nki.jit(parts)
    for _ in range(3):
        found = kernel(x)
        assert found["same"] is x
        assert found["number"] == 3
        torch.testing.assert_close(found["whole"], x)
        torch.testing.assert_close(found["tail"], x[4:])
        assert found["tail"].data_ptr() == found["whole"][4:].data_ptr()
    assert slow == ["parts"]


def test_every_check_is_made_of_warm_calls(x: Any) -> None:
    kernel, writes = nki.jit(added), nki.jit(written)
    wide = torch.zeros(16, 16)
    for _ in range(2):
        kernel(x)
        writes(torch.zeros_like(x), x)
    torch.testing.assert_close(kernel(x.T.contiguous().T), x + 1)  # copied
    with pytest.raises(NonContiguousArgument):
        writes(wide[:, :8], x)
    both = torch.zeros(24, 8)
    with pytest.raises(OverlappingArguments):
        writes(both[:16], both[8:])
    with pytest.raises(InvalidOutput):
        kernel(x, out=torch.zeros(16, 9))
    with pytest.raises(UnsupportedArgument, match="elements cannot be taken"):
        kernel(x.to_sparse())
    with pytest.raises(MissingGradient):
        kernel(x.clone().requires_grad_())
    with torch.no_grad():
        torch.testing.assert_close(kernel(x.clone().requires_grad_()), x + 1)
    negated = torch.complex(x, x).conj().imag
    assert negated.is_neg()
    with pytest.raises(UnsupportedArgument):
        kernel(negated)
    assert kernel(x.to("meta")).device.type == "meta"
    torch.testing.assert_close(torch.vmap(kernel)(torch.stack([x, x])), torch.stack([x, x]) + 1)
    with torch.device("meta"):
        torch.testing.assert_close(kernel(x), x + 1)


def test_what_a_trace_reads_is_proven_for_warm_calls(x: Any) -> None:
    offset = [1.0]

    @nki.jit
    def kernel(x):
        return added(x, offset[0])

    for value in (1.0, 1.0, 3.0):
        offset[0] = value
        torch.testing.assert_close(kernel(x), x + value)


def test_large_tensors_on_several_threads(slow: list[str]) -> None:
    @nki.jit
    def kernel(x):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        for row in range(0, x.shape[0], 128):
            tile = nl.load(x[row:row + 128])
            nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
            nl.store(out[row:row + 128], tile)
        return out

    x = torch.ones(1024, 4096, dtype=torch.bfloat16)
    for _ in range(3):
        assert torch.equal(kernel(x), 2 * x)
    assert len(slow) == 1


def test_gradients_trace_no_more_than_twice(x: Any, monkeypatch) -> None:
    traced = []
    original = outlines.outline

    def counted(*args):
        traced.append(args)
        return original(*args)

    monkeypatch.setattr(operators, "outline", counted)
    kernel = nki.jit(added)
    kernel.register_autograd(lambda ctx, g: (g, None))
    for i in range(5):
        y = x.clone().requires_grad_()
        kernel(y, 2.0).sum().backward()
        torch.testing.assert_close(y.grad, torch.ones_like(x))
        torch.testing.assert_close(kernel(y, 2.0).detach(), x + 2)
        assert len(traced) <= 2, i
