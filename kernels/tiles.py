"""What the gallery shares: cutting extents, placing rows on partitions, transposing through PSUM, scaling rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import nkilite.isa as nisa
import nkilite.language as nl

P = 128  # partitions of SBUF and PSUM, rows and columns of the systolic array
BANK = 512  # float32 elements a PSUM bank holds per partition, also the widest moving operand before gen4
ITEMSIZE = {nl.float32: 4, nl.bfloat16: 2, nl.float16: 2}
ENGINES = {"gpsimd": nisa.engine.gpsimd, "scalar": nisa.engine.scalar, "vector": nisa.engine.vector}

# Below about 2 KiB of contiguous bytes per partition, a DMA is dominated by its descriptors.
DMA_BYTES = 2048


def engine(name: str) -> nisa.engine:
    """The engine of a meta-parameter: "gpsimd" or "vector", which share most elementwise instructions, or "scalar"."""
    assert name in ENGINES, f"engine {name!r} is not one of {sorted(ENGINES)}"
    return ENGINES[name]


def tiles(extent: int, size: int) -> Iterator[tuple[int, int]]:
    """``(start, length)`` of consecutive tiles covering ``range(extent)``; the last may be shorter."""
    for start in range(0, extent, size):
        yield start, min(size, extent - start)


def share_of_core(extent: int) -> tuple[int, int]:
    """``(start, length)`` of the part of ``range(extent)`` of this core of the launch: all of it on one core."""
    cores = nl.num_programs()
    size = -(-extent // cores)
    start = min(nl.program_id(0) * size, extent)
    return start, min(size, extent - start)


def row_blocks(rows: int, depth: int) -> Iterator[tuple[int, int, int]]:
    """``(start, partitions, depth)`` of blocks covering `rows` independent rows.

    A block puts `depth` *consecutive* rows on each partition, so a partition's share is one contiguous run of
    HBM and one DMA moves the block with few, long descriptors. What is left after the full blocks follows one
    row per partition; only the very last block may use fewer than 128 partitions.
    """
    start = 0
    while start < rows:
        left = rows - start
        block = (P, depth) if left >= P * depth else (min(P, left), 1)
        yield start, *block
        start += block[0] * block[1]


def default_depth(row_bytes: int) -> int:
    """Rows per partition that make a DMA's contiguous runs about 2 KiB, at most 8."""
    return max(1, min(8, DMA_BYTES // row_bytes))


def flat_blocks(count: int, columns: int) -> Iterator[tuple[int, int, int]]:
    """``(start, partitions, width)`` of blocks covering `count` elements whose order does not matter.

    A block is a contiguous run of HBM, `width` <= `columns` elements of it on each partition. Only what remains of a
    division by 128 is left to a last, one-partition block.
    """
    start = 0
    while start < count:
        left = count - start
        p, width = (P, min(columns, left // P)) if left >= P else (1, left)
        yield start, p, width
        start += p * width


def load_broadcast(vector: nl.NkiTensor) -> nl.NkiTensor:
    """An HBM vector [D] as an SBUF tile [128, D] with a copy on every partition.

    Engines cannot broadcast across partitions, but a DMA may read the same HBM row 128 times.
    """
    width = vector.shape[0]
    tile = nl.ndarray((P, width), dtype=vector.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=vector.reshape((1, width)).broadcast(0, P))
    return tile


def load_stacked(matrix: nl.NkiTensor) -> nl.NkiTensor:
    """An HBM matrix [n * 128, W] as an SBUF tile [128, n, W] by one DMA; tile[:, i] has rows i * 128 on."""
    rows, width = matrix.shape
    tile = nl.ndarray((P, rows // P, width), dtype=matrix.dtype, buffer=nl.sbuf)
    nisa.dma_copy(dst=tile, src=matrix.reshape_dim(0, (rows // P, P)).permute((1, 0, 2)))
    return tile


def load_transposed(x: nl.NkiTensor, dtype: Any) -> nl.NkiTensor:
    """HBM [tokens, H] as an SBUF tile [128, H / 128, tokens]; tile[:, j] holds features j * 128 onwards."""
    tokens, H = x.shape
    transposed = nl.ndarray((P, H // P, tokens), dtype=dtype, buffer=nl.sbuf)
    for t, rows in tiles(tokens, P):
        tile = nl.ndarray((rows, H), dtype=x.dtype, buffer=nl.sbuf)
        nisa.dma_copy(dst=tile, src=x[t : t + rows, :])
        transpose_chunks(transposed[:, :, t : t + rows], [tile[:, h : h + P] for h in range(0, H, P)])
    return transposed


def transpose_chunks(
    dst: nl.NkiTensor, chunks: list[nl.NkiTensor], per_copy: int | None = None, on: str = "vector"
) -> None:
    """``dst[:, i, :] = chunks[i].T`` on the Tensor Engine: SBUF chunks [r, c] of one shape to dst [c, n, r].

    Transposes are collected in a PSUM bank, so that one copy out by the engine `on` serves `per_copy` of them, by
    default as many as fit: four float32 or eight bfloat16 tiles.
    """
    rows, columns = chunks[0].shape
    dtype = chunks[0].dtype
    fitting = max(1, BANK * 4 // (rows * ITEMSIZE[dtype]))
    for start, count in tiles(len(chunks), min(per_copy or fitting, fitting)):
        bank = nl.ndarray((columns, count, rows), dtype=dtype, buffer=nl.psum)
        for i in range(count):
            nisa.nc_transpose(dst=bank[:, i, :], data=chunks[start + i], engine=nisa.engine.tensor)
        nisa.tensor_copy(dst=dst[:, start : start + count, :], src=bank, engine=engine(on))


def combine(parts: nl.NkiTensor, op: Any, negate: bool = False) -> nl.NkiTensor:
    """Reduces parts [p, rows, n] of row reductions to [p, rows]; a single part is taken as it is."""
    p, rows, count = parts.shape
    if count == 1:
        return parts.reshape((p, rows))
    whole = nl.ndarray((p, rows), dtype=parts.dtype, buffer=nl.sbuf)
    nisa.tensor_reduce(dst=whole, op=op, data=parts, axis=2, negate=negate)
    return whole


def scale_rows(dst: nl.NkiTensor, data: nl.NkiTensor, factor: nl.NkiTensor, on: str) -> None:
    """dst = data * factor [p, 1] on an engine by name; on the Scalar Engine the factor rides on a copy."""
    if engine(on) == nisa.engine.scalar:
        nisa.activation(dst=dst, op=nl.copy, data=data, scale=factor)
    else:
        nisa.tensor_scalar(dst=dst, data=data, op0=nl.multiply, operand0=factor, engine=engine(on))
