"""The spellings of torch-neuronx, in a process of their own: `compat.install` changes what imports mean."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed")

SCRIPT = """
import torch
from torch_neuronx import nki_op, wrap_nki
import nki
import nki.isa as nisa
import nki.language as nl


@nki.jit
def doubled(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=2.0)
    nisa.dma_copy(dst=out, src=tile)
    return out


@nki_op("mine::twice", mutates_args={})
def twice(x: torch.Tensor) -> torch.Tensor:
    return doubled(x)


@nki.jit
def write(cache, x, row):
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.dma_copy(dst=cache[nl.ds(row, x.shape[0])], src=tile)
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out, cache


@nki_op("mine::append", mutates_args={"cache"})
def append(cache: torch.Tensor, x: torch.Tensor, row: int) -> tuple[torch.Tensor, torch.Tensor]:
    return write(cache, x, row)


def layers(cache, x):
    _, cache = append(cache, x, 0)
    return torch.ops.mine.append(cache, 2 * x, 2)


for model in (layers, torch.compile(layers, fullgraph=True, backend="aot_eager")):
    x, cache = torch.randn(2, 4), torch.zeros(4, 4)
    out, cache = model(cache, x)
    torch.testing.assert_close(cache, torch.cat([x, 2 * x]))
    torch.testing.assert_close(out, 2 * x)

twice.register_autograd(lambda ctx, g: g * 2)
x = torch.randn(128, 32)
torch.testing.assert_close(twice(x), 2 * x)
torch.testing.assert_close(torch.compile(twice, fullgraph=True, backend="aot_eager")(x), 2 * x)
y = x.clone().requires_grad_()
twice(y).sum().backward()
torch.testing.assert_close(y.grad, torch.full_like(x, 2.0))
torch.testing.assert_close(wrap_nki(doubled)[1](x), 2 * x)
print("done")
"""


DEVICE = """
import torch
import nki
import nki.isa as nisa
import nki.language as nl
from torch_neuronx.nki_hop import wrap_nki
from libtorch_neuronx_lite.nki.nki_hop import wrap_nki as lite


@nki.jit
def halved(x):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=x)
    nisa.tensor_scalar(dst=tile, data=tile, op0=nl.multiply, operand0=0.5)
    nisa.dma_copy(dst=out, src=tile)
    return out


torch.manual_seed(1)
device = torch.device("neuron", torch.neuron.current_device())
x = torch.randn(8, 4).to(device)
layer = torch.nn.Linear(4, 4, device="neuron:0").to("neuron")
for kernel in (halved, wrap_nki(halved)[1], lite(halved)[1]):
    torch.testing.assert_close(kernel(layer(x).detach()).to(device), layer(x) / 2)
compiled = torch.compile(lambda x: layer(x) + torch.ones(4, device=device), backend="neuron", fullgraph=True)
torch.testing.assert_close(compiled(x), layer(x) + 1)
torch.neuron.synchronize()
torch.testing.assert_close(torch.ones(4, device=torch.neuron.current_device()).to(0), torch.ones(4))
print("done", x.device)
"""


@pytest.mark.parametrize(
    ("program", "options", "printed"),
    [
        (SCRIPT, [], "done\n"),
        (SCRIPT, ["--torch-xla-stub"], "done\n"),
        (DEVICE, ["--torch-xla-stub"], "done cpu\n"),
    ],
    ids=["operators", "operators beside the stub", "the device of native PyTorch"],
)
def test_programs(program: str, options: list[str], printed: str, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(program)
    command = [sys.executable, "-m", "nkilite", "run", *options, str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == printed, done.stderr
