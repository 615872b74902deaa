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


@pytest.mark.parametrize("options", [[], ["--torch-xla-stub"]])
def test_operators(options: list[str], tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "nkilite", "run", *options, str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr
