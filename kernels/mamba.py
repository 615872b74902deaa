"""Selective scan, the recurrence at the heart of Mamba, without its states ever leaving the chip:

    h[s, t] = exp(delta[t] A[s]) h[s, t - 1] + delta[t] u[t] B[s, t]
    y[t]    = sum over s of C[s, t] h[s, t]

for every channel, which has its own delta, u, y and row of A; B and C are shared by all of them. There are S
times as many states as outputs, so a kernel that stores them is bound by memory, and this one is not.

Layout: channels on partitions, time along the free dimension, where one instruction runs the whole recurrence
of a state. A channel's A[s] is then a scalar per partition, free to multiply with inside the exponential. The
rows B[s] and C[s] are the same for all channels, which no engine can broadcast across partitions, so the DMA
writes them 128 times.

Algorithm, per state, for 128 channels and SEQ_TILE steps:

    Scalar  activation          a = exp(A[s] delta), A[s] as per-partition scale
    GpSimd  tensor_tensor       b = (delta u) B[s]; delta u is computed once for all states
    Vector  tensor_tensor_scan  h[t] = a[t] h[t - 1] + b[t], from the last state of the tile before
    GpSimd  tensor_tensor       h C[s]
    Vector  tensor_tensor       y += h C[s]; the last addition writes the output type

Four passes over the data by two engines, two each: INPUT_ENGINE and OUTPUT_ENGINE say where the products run.
Time is cut into tiles, and the last element of each scan is carried into the next. Loops run over blocks of
channels, time, blocks of states, channel tiles and states, outermost first. B and C are the larger traffic,
2 S rows written on 128 partitions, and are loaded once per block of channels; what that costs is SBUF for
delta u and y of the whole block. STATES_IN_BLOCK moves the loop over states: 1 loads one state at a time
and sweeps all channels of the block with it, S keeps all of B and C of a time tile and finishes one channel
tile after the other.
"""

from __future__ import annotations

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from kernels import Case
from kernels.tiles import P, engine, tiles
from nkilite.testing import make

SPACE = {
    "SEQ_TILE": (128, 256, 512, 1024, 2048),
    "CHANNEL_TILES_IN_BLOCK": (1, 2, 4, 8),
    "STATES_IN_BLOCK": (1, 2, 4, 8, 16),
    "INPUT_ENGINE": ("gpsimd", "vector"),
    "OUTPUT_ENGINE": ("gpsimd", "vector"),
}


@nki.jit
def mamba(
    delta, u, a, b, c, SEQ_TILE=512, CHANNEL_TILES_IN_BLOCK=4, STATES_IN_BLOCK=4, INPUT_ENGINE="gpsimd",
    OUTPUT_ENGINE="gpsimd",
):
    """Selective scan of `u` with step sizes `delta`, from a state of zero, computed in float32.

    Args:
        delta: HBM [batch, channels, T], float32 or bfloat16; any sizes.
        u: HBM [batch, channels, T], the input.
        a: HBM [channels, S], float32, not positive for a recurrence that decays.
        b: HBM [batch, S, T], what the input adds to each state.
        c: HBM [batch, S, T], what each state adds to the output.
        SEQ_TILE: time steps per instruction.
        CHANNEL_TILES_IN_BLOCK: channels that share loaded B and C, in tiles of 128.
        STATES_IN_BLOCK: states whose B and C are loaded by one DMA each.
        INPUT_ENGINE: "gpsimd" or "vector", which multiplies with B.
        OUTPUT_ENGINE: the same for C.

    Returns:
        HBM [batch, channels, T] of the dtype of `u`.
    """
    batch, channels, steps = u.shape
    states = a.shape[1]
    _validate(delta, u, a, b, c)
    out = nl.ndarray(u.shape, dtype=u.dtype, buffer=nl.shared_hbm)
    for n in range(batch):
        for first, size in tiles(channels, P * CHANNEL_TILES_IN_BLOCK):
            block = [slice(first + i, first + i + p) for i, p in tiles(size, P)]
            decays = [_load(a[rows, :]) for rows in block]
            carried = [nl.ndarray(decay.shape, dtype=nl.float32, buffer=nl.sbuf) for decay in decays]
            for t, length in tiles(steps, SEQ_TILE):
                time, running = slice(t, t + length), []
                for s, count in tiles(states, STATES_IN_BLOCK):
                    b_rows = _load_shared(b[n, s : s + count, time])
                    c_rows = _load_shared(c[n, s : s + count, time])
                    for i, rows in enumerate(block):
                        if s == 0:
                            running.append(_begin(delta[n, rows, time], u[n, rows, time]))
                        step, drive, y = running[i]
                        for j in range(s, s + count):
                            decay, carry = decays[i][:, j : j + 1], carried[i][:, j : j + 1]
                            state = _scan(step, drive, decay, b_rows[:, j - s, :], carry if t else 0.0, INPUT_ENGINE)
                            if t + length < steps:
                                nisa.activation(dst=carry, op=nl.copy, data=state[:, length - 1 :])
                            before, y = y, _output_tile(y, out.dtype) if j + 1 == states else y
                            _add_output(y, before if j else None, state, c_rows[:, j - s, :], OUTPUT_ENGINE)
                        if s + count == states:
                            nisa.dma_copy(dst=out[n, rows, time], src=y)
    return out


def _scan(step, drive, decay, b_row, initial, on):
    """One state of p channels, [p, length], from its value before the first step."""
    gate = nl.ndarray(step.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.activation(dst=gate, op=nl.exp, data=step, scale=decay)
    added = nl.ndarray(step.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=added, data1=drive, data2=b_row[0 : step.shape[0], :], op=nl.multiply, engine=engine(on))
    state = nl.ndarray(step.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor_scan(dst=state, data0=gate, data1=added, initial=initial, op0=nl.multiply, op1=nl.add)
    return state


def _add_output(dst, y, state, c_row, on):
    """dst = y + state * c_row; None for a y of zeros."""
    share = dst if y is None else nl.ndarray(state.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=share, data1=state, data2=c_row[0 : state.shape[0], :], op=nl.multiply, engine=engine(on))
    if y is not None:
        nisa.tensor_tensor(dst=dst, data1=y, data2=share, op=nl.add)


def _begin(delta, u):
    """delta, delta u and a tile for y, for the channels and time steps of two HBM views."""
    step, drive = _load(delta), nl.ndarray(u.shape, dtype=nl.float32, buffer=nl.sbuf)
    nisa.tensor_tensor(dst=drive, data1=step, data2=_load(u), op=nl.multiply)
    return step, drive, nl.ndarray(u.shape, dtype=nl.float32, buffer=nl.sbuf)


def _output_tile(y, dtype):
    """A tile to store from: y itself where it has the output's type."""
    return y if y.dtype == dtype else nl.ndarray(y.shape, dtype=dtype, buffer=nl.sbuf)


def _load(view):
    tile = nl.ndarray(view.shape, dtype=view.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=view)
    return tile


def _load_shared(rows):
    """HBM [n, length] as an SBUF tile [128, n, length] with a copy on every partition."""
    tile = nl.ndarray((P, *rows.shape), dtype=rows.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=rows.expand_dim(0).broadcast(0, P))
    return tile


def _validate(delta, u, a, b, c):
    batch, channels, steps = u.shape
    states = a.shape[1]
    found = [list(x.shape) for x in (delta, a, b, c)]
    expected = [[batch, channels, steps], [channels, states], [batch, states, steps], [batch, states, steps]]
    assert found == expected, (
        f"delta, a, b and c must be {', '.join(map(str, expected))} for u of {list(u.shape)}, "
        f"found {', '.join(map(str, found))}"
    )


def inputs(dtype="float32", seed=0, *, batch, channels, T, S):
    """Steps between 0.001 and 0.1 and A[s] = -(s + 1), as Mamba begins training with."""
    kind = make(1, dtype).dtype
    steps = np.exp(np.interp(make((batch, channels, T), "float32", seed), (-3, 3), np.log((1e-3, 1e-1))))
    return (
        steps.astype(kind),
        make((batch, channels, T), dtype, seed + 1),
        np.tile(-np.arange(1, S + 1, dtype=np.float32), (channels, 1)),
        make((batch, S, T), dtype, seed + 2),
        make((batch, S, T), dtype, seed + 3),
    )


def reference(delta, u, a, b, c):
    """Time step after time step in float64, all batches, channels and states at once."""
    delta, u, a, b, c = (x.astype(np.float64) for x in (delta, u, a, b, c))
    state = np.zeros((u.shape[0], *a.shape))
    y = np.empty_like(u)
    for t in range(u.shape[2]):
        drive = delta[:, :, t] * u[:, :, t]
        state = np.exp(delta[:, :, t, None] * a) * state + drive[:, :, None] * b[:, None, :, t]
        y[:, :, t] = np.einsum("bcs,bs->bc", state, c[:, :, t])
    return y


def tolerance(*, batch, channels, T, S):
    return {"reduction": S * min(T, 1000)}


def in_numpy(delta, u, A, B, C):
    state, y = np.zeros((*u.shape[:2], A.shape[1]), np.float32), np.empty_like(u)
    for t in range(u.shape[2]):
        state *= np.exp(delta[:, :, t, None] * A)
        state += (delta[:, :, t] * u[:, :, t])[:, :, None] * B[:, None, :, t]
        y[:, :, t] = np.einsum("bcs,bs->bc", state, C[:, :, t])
    return y


SHOWN = {"batch": 1, "channels": 256, "T": 1024, "S": 16}

CASES = (
    Case({"batch": 1, "channels": 128, "T": 256, "S": 16}, "float32"),
    Case({"batch": 2, "channels": 200, "T": 300, "S": 4}, "float32", {"SEQ_TILE": 128, "CHANNEL_TILES_IN_BLOCK": 1}),
    Case({"batch": 1, "channels": 300, "T": 130, "S": 6}, "bfloat16", {"SEQ_TILE": 64, "INPUT_ENGINE": "vector"}),
    Case({"batch": 3, "channels": 5, "T": 7, "S": 1}, "float32"),
    Case({"batch": 1, "channels": 257, "T": 1100, "S": 3}, "float32", {"STATES_IN_BLOCK": 1}),
)
