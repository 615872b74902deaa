"""The selective scan of Mamba against what torch has for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from benchmarks import peers
from benchmarks.speed.match import Match
from kernels.mamba import inputs, mamba

CHANNELS, STEPS, STATES = 512, 2048, 16


def matches(threads: int) -> Iterator[Match]:
    arrays = inputs(batch=1, channels=CHANNELS, T=STEPS, S=STATES)
    others: dict[str, Callable[[], object]] = {}
    torch = peers.library("torch")
    if torch is not None:
        step_by_step, doubling = _formulas(torch)
        tensors = [torch.from_numpy(a) for a in arrays]
        others["torch, steps in a loop"] = lambda: step_by_step(*tensors)
        others["torch, doubling"] = lambda: doubling(*tensors)
        fast = peers.compiled(doubling, *tensors)
        if fast is not None:
            others["torch.compile, doubling"] = lambda: fast(*tensors)
    goals = dict.fromkeys(others, 5.0)
    yield Match("mamba scan", f"{CHANNELS}×{STEPS}×{STATES}", lambda: mamba(*arrays), others, goals)


def _formulas(torch: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The scan in torch, in two ways."""

    def step_by_step(delta: Any, u: Any, A: Any, B: Any, C: Any) -> Any:
        """One time step after the other, vectorized over channels and states."""
        decay = torch.exp(delta[..., None] * A[None, :, None, :])  # [batch, channels, T, S]
        drive = (delta * u)[..., None] * B.transpose(1, 2)[:, None]
        state = torch.zeros_like(drive[:, :, 0])
        outputs = []
        for t in range(u.shape[2]):
            state = decay[:, :, t] * state + drive[:, :, t]
            outputs.append((state * C[:, None, :, t]).sum(-1))
        return torch.stack(outputs, -1)

    def doubling(delta: Any, u: Any, A: Any, B: Any, C: Any) -> Any:
        """A parallel scan: log2(T) passes that each join neighbouring runs of time steps."""
        decay = torch.exp(delta[:, :, None] * A[None, :, :, None])  # [batch, channels, S, T]
        state = (delta * u)[:, :, None] * B[:, None]
        pad = torch.nn.functional.pad
        reach, steps = 1, u.shape[2]
        while reach < steps:
            state = state + decay * pad(state, (reach, 0))[..., :steps]
            decay = decay * pad(decay, (reach, 0), value=1.0)[..., :steps]
            reach *= 2
        return (state * C[:, None]).sum(2)

    return step_by_step, doubling
