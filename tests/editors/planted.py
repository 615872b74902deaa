"""A user's file with mistakes, on lines that end with `# planted`, for checkers to find; it is never run."""

import numpy as np

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
import nkilite.typing as nt


@nki.jit
def scaled_exp(x: nt.tensor, scale: float = 1.0):
    out = nl.ndarray(x.shape, dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    nisa.activation(dst=tile, op=nl.exp, data=tile, scale=scale)
    nisa.tensor_tensor(tile, tile, tile, op=nl.add, engine=nisa.engine.vector).depends_on()
    nl.store(out, tile)
    return out


@nki.jit(mode="auto")
def mistaken(x, rows: int):
    tile = nl.load(x)
    nisa.activatoin(dst=tile, op=nl.exp, data=tile)  # planted
    nisa.tensor_copy(dst=tile, source=tile)  # planted
    nisa.tensor_copy(dst=tile)  # planted
    nisa.reciprocal(dst=tile, data=[1.0])  # planted
    nisa.tensor_scalar(tile, tile, nl.add, "two")  # planted
    nisa.tensor_tensor(tile, tile, tile, op=3)  # planted
    nisa.tensor_copy(dst=tile, src=tile, engine="vector")  # planted
    nl.expp(tile)  # planted
    return nki.jitt(tile)  # planted


array = np.zeros((128, 512), np.float32)
scaled_exp(array, scale=0.5)
scaled_exp(array, 0.5, out=array)
scaled_exp[2](array)
scaled_exp.compile(array, scale=2.0)
print(scaled_exp.trace(array).count)
nki.simulate(scaled_exp)(array, scale=0.5)
nki.simulate(scaled_exp.function)(array, scale=0.5)
mistaken(array, rows=2)
scaled_exp(array, scal=0.5)  # planted
scaled_exp(array, scale="half")  # planted
mistaken(array)  # planted
nki.simulate(scaled_exp)(array, scal=0.5)  # planted
scaled_exp[2](array, scal=0.5)  # planted
scaled_exp.compile(array, scal=0.5)  # planted
