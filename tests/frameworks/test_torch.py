"""Kernels as operators of torch: compiled, exported, mapped, differentiated, on tensors without memory."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.frameworks.torch import InvalidGradient, MissingGradient, WritesWithGradient, WrittenInMap

torch = pytest.importorskip("torch", reason="torch is not installed")


class Pair(NamedTuple):
    doubled: Any
    squared: Any


def doubling() -> nki.Kernel:
    @nki.jit
    def scaled(x, factor=2.0):
        out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
        tile = nl.load(x)
        nisa.tensor_scalar(tile, tile, nl.multiply, factor)
        nl.store(out, tile)
        return out

    return scaled


@nki.jit
def pair(inputs, sign=1):
    results = []
    for operand0 in (2.0 * sign, None):
        out = nl.ndarray(inputs["x"].shape, dtype=inputs["x"].dtype, buffer=nl.shared_hbm)
        tile = nl.load(inputs["x"])
        if operand0 is None:
            nisa.tensor_tensor(tile, tile, tile, nl.multiply)
        else:
            nisa.tensor_scalar(tile, tile, nl.multiply, operand0)
        nl.store(out, tile)
        results.append(out)
    return Pair(*results)


@nki.jit
def increment(x, by):
    tile = nl.load(x)
    nisa.tensor_tensor(tile, tile, nl.load(by), nl.add)
    nl.store(x, tile)


def incremented(x, by):
    increment(x, by)
    return x


@nki.jit
def last_rows(x):
    out = nl.ndarray((16, 8), dtype=x.dtype, buffer=nl.shared_hbm)
    nl.store(out, nl.load(x))
    return out[8:16], x


@pytest.fixture
def x() -> Any:
    return torch.arange(128, dtype=torch.float32).reshape(16, 8) / 16


def compiled(function: Any) -> Any:
    torch._dynamo.reset()
    return torch.compile(function, fullgraph=True, backend="aot_eager")


def test_a_graph_holds_the_call(x: Any) -> None:
    kernel = doubling()
    function = compiled(lambda x, factor: kernel(x + 1, factor) * 3)
    for factor in (2.0, 5.0, 7.0):
        torch.testing.assert_close(function(x, factor), (x + 1) * factor * 3)


def test_code_that_torch_writes_finds_kernels_of_a_script(x: Any) -> None:
    """Inductor calls operators in the body of a class, where names that begin with two underscores are others."""
    kernel = doubling()
    kernel.__module__ = "__main__"
    before = set(dir(torch.ops.nkilite))
    torch.vmap(kernel)(x[None])
    (name,) = set(dir(torch.ops.nkilite)) - before
    names = {"torch": torch}
    exec(f"class Runner:\n    def call(self, x): return torch.ops.nkilite.{name}(x)", names)
    torch.testing.assert_close(names["Runner"]().call(x), 2 * x)


def test_a_new_float_is_no_new_operator(x: Any) -> None:
    kernel = doubling()
    before = len([n for n in dir(torch.ops.nkilite) if "scaled" in n])
    torch.vmap(lambda e: kernel(e, 3.0))(x[None])
    torch.vmap(lambda e: kernel(e, 4.0))(x[None])
    assert len([n for n in dir(torch.ops.nkilite) if "scaled" in n]) == before + 1


def test_containers_and_several_results(x: Any) -> None:
    found = compiled(lambda x: tuple(pair({"x": x}, sign=-1)))(x)
    for got, wanted in zip(found, (x * -2, x * x), strict=True):
        torch.testing.assert_close(got, wanted)


def test_results_that_are_views_and_inputs(x: Any) -> None:
    def both(x):
        tail, same = last_rows(x)
        return tail + 1, same + 1

    for got, wanted in zip(compiled(both)(x), (x[8:] + 1, x + 1), strict=True):
        torch.testing.assert_close(got, wanted)


def test_arguments_that_are_written(x: Any) -> None:
    def function(x, by):
        increment(x, by)
        return x * 2

    y = x.clone()
    torch.testing.assert_close(compiled(function)(y, torch.ones_like(x)), (x + 1) * 2)
    torch.testing.assert_close(y, x + 1)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "float8_e4m3fn"])
def test_element_types(dtype: str, x: Any) -> None:
    kernel = doubling()
    values = x.to(torch.float32).round().to(getattr(torch, dtype))
    got = compiled(lambda v: kernel(v))(values)
    assert got.dtype == values.dtype
    wanted = torch.from_numpy(np.asarray(values.to(torch.float32)) * 2)
    torch.testing.assert_close(got.to(torch.float32), wanted.to(values.dtype).to(torch.float32))


def test_export(x: Any) -> None:
    kernel = doubling()

    class Model(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return kernel(x, 3.0)

    program = torch.export.export(Model(), (x,))
    assert any("nkilite" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), x * 3)


def test_vmap(x: Any) -> None:
    batch = torch.stack([x, x + 1, x + 2], dim=1)
    torch.testing.assert_close(torch.vmap(doubling(), in_dims=1)(batch), torch.movedim(batch, 1, 0) * 2)
    y, by = batch.clone(), torch.ones_like(x)
    torch.vmap(lambda a: incremented(a, by), in_dims=1)(y)
    torch.testing.assert_close(y, batch + 1)
    with pytest.raises(WrittenInMap, match="'x'"):
        torch.vmap(lambda b: incremented(x, b), in_dims=1)(batch)


def test_shapes_alone(x: Any) -> None:
    kernel = doubling()
    assert kernel(x.to("meta")).device.type == "meta"
    from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

    with FakeTensorMode():
        found = kernel(torch.empty(64, 32, dtype=torch.bfloat16))
    assert isinstance(found, FakeTensor)
    assert found.shape == (64, 32)
    assert found.dtype == torch.bfloat16


def test_no_gradient_is_dropped_without_a_word(x: Any) -> None:
    kernel = doubling()
    with pytest.raises(MissingGradient, match="'x'") as caught:
        kernel(x.requires_grad_())
    assert "kernel(x.requires_grad_())" in str(caught.value)
    with torch.no_grad():
        assert not kernel(x).requires_grad
    with pytest.raises(MissingGradient, match="'by'"):
        increment(x.detach(), x)
    increment.register_autograd(lambda ctx, *gradients: (None, None))
    try:
        with pytest.raises(WritesWithGradient, match="'x'"):
            increment(x.detach(), x)
    finally:
        increment.gradient = None


def test_gradients(x: Any) -> None:
    kernel = doubling()

    def save(ctx, inputs, output):
        ctx.factor = inputs[1]

    kernel.register_autograd(lambda ctx, g: (kernel(g, ctx.factor), None), setup_context=save)
    for function in (kernel, compiled(lambda x, f: kernel(x, f))):
        y = x.clone().requires_grad_()
        function(y, 3.0).sum().backward()
        torch.testing.assert_close(y.grad, torch.full_like(x, 3.0))


def test_gradients_of_nested_arguments(x: Any) -> None:
    def save(ctx, inputs, output):
        ctx.save_for_backward(inputs[0]["x"])

    def backward(ctx, doubled, squared):
        (value,) = ctx.saved_tensors
        return {"x": doubled * 2 + squared * 2 * value}, None

    pair.register_autograd(backward, setup_context=save)
    try:
        y = x.clone().requires_grad_()
        sum(r.sum() for r in pair({"x": y})).backward()
        torch.testing.assert_close(y.grad, 2 + 2 * x)
        pair.register_autograd(lambda ctx, *gradients: None)
        with pytest.raises(InvalidGradient, match="1 gradients for 2"):
            sum(r.sum() for r in pair({"x": y})).backward()
    finally:
        pair.gradient = None


def test_operators_pass_the_checks_of_torch(x: Any) -> None:
    kernel = doubling()
    kernel.register_autograd(lambda ctx, g: (kernel(g, 2.0), None))
    kernel(x.clone().requires_grad_())
    torch.vmap(incremented)(x[None].clone(), x[None])
    for name, operands in (("scaled", (x.clone().requires_grad_(),)), ("increment", (x.clone(), x.clone()))):
        last = sorted((n for n in dir(torch.ops.nkilite) if name in n), key=lambda n: (len(n), n))[-1]
        torch.library.opcheck(getattr(torch.ops.nkilite, last).default, operands)
