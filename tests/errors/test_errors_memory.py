"""Mistakes about memories: partitions, banks, capacity, addresses, and contents that were never written."""

from __future__ import annotations

from errors_testing import Table, X, check, psum, sbuf, stored

import nkilite as nki
import nkilite.isa as nisa
import nkilite.language as nl
from nkilite.errors import (
    AccumulateUninitialized,
    FreeSizeExceeded,
    HbmOverflow,
    InvalidAddress,
    InvalidOperand,
    InvalidReturn,
    MemoryOverflow,
    PartitionLimitExceeded,
    PsumBankExceeded,
    StaleTensor,
    UninitializedRead,
    UnwrittenOutput,
    WrongMemory,
)

mistake = Table()


@mistake(PartitionLimitExceeded, "129", "128", "split")
def too_many_partitions(x):
    nl.ndarray((129, 4), dtype=nl.float32)  # here


@mistake(PartitionLimitExceeded, "(200, 8)", "200 partitions", "at most 128")
def three_dimensions_put_the_batch_first(x):
    nl.zeros((200, 8), dtype=nl.float32)  # here


@mistake(PsumBankExceeded, "dst", "4096 bytes", "2048", "512 float32")
def matmul_over_a_bank(x):
    stationary, moving = sbuf((64, 64)), sbuf((64, 1024))
    dst = psum((64, 1024), value=None)
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(FreeSizeExceeded, "moving", "1024", "512")
def moving_too_wide(x):
    stationary, moving = sbuf((64, 64), nl.bfloat16), sbuf((64, 1024), nl.bfloat16)
    dst = psum((64, 512), value=None)
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(WrongMemory, "stationary", "PSUM", "SBUF", "tensor_copy")
def stationary_in_psum(x):
    stationary, moving, dst = psum((64, 64)), sbuf(), psum(value=None)
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(WrongMemory, "moving", "moving is in HBM", "SBUF", "dma_copy")
def moving_in_hbm(x):
    stationary, dst = sbuf((64, 64)), psum(value=None)
    nisa.nc_matmul(dst, stationary, x)  # here


@mistake(WrongMemory, "dst", "SBUF", "PSUM", "nl.psum")
def matmul_into_sbuf(x):
    stationary, moving, dst = sbuf((64, 64)), sbuf(), sbuf(value=None)
    nisa.nc_matmul(dst, stationary, moving)  # here


@mistake(WrongMemory, "src", "PSUM", "SBUF or HBM", "tensor_copy")
def dma_from_psum(x):
    tile = psum()
    out = nl.ndarray((64, 32), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)  # here


@mistake(WrongMemory, "dst", "PSUM", "SBUF or HBM")
def dma_to_psum(x):
    tile = psum(value=None)
    nisa.dma_copy(tile, x)  # here


@mistake(WrongMemory, "data1 is in HBM", "SBUF or PSUM", "dma_copy")
def compute_on_hbm(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, x, tile, op=nl.add)  # here


@mistake(WrongMemory, "data2", "PSUM", "SBUF", "tensor_copy")
def two_inputs_in_psum(x):
    a, b, dst = psum(), psum(), sbuf(value=None)
    nisa.tensor_tensor(dst, a, b, op=nl.add)  # here


@mistake(WrongMemory, "src", "PSUM", "SBUF")
def gpsimd_reads_psum(x):
    tile, dst = psum(), sbuf(value=None)
    nisa.tensor_copy(dst, tile, engine=nisa.engine.gpsimd)  # here


@mistake(WrongMemory, "dst", "SBUF")
def iota_into_hbm(x):
    out = nl.ndarray((64, 32), dtype=nl.int32, buffer=nl.shared_hbm)
    nisa.iota(out, [[1, 32]])  # here


@mistake(MemoryOverflow, "SBUF", "trn2", "4000000 bytes", "use smaller tiles")
def one_tile_larger_than_sbuf(x):
    nl.ndarray((128, 1000000), dtype=nl.float32)  # here


@mistake(
    MemoryOverflow, "SBUF overflow on trn2", "third", "100000 bytes per partition", "200000 of", "too many",
    "first float32 [128, 25000]", "second float32 [128, 25000]", "test_errors_memory.py:",
)
def tiles_larger_than_sbuf(x):
    tiles = [nl.ndarray((128, 25000), dtype=nl.float32, name=n) for n in ("first", "second", "third")]  # here
    for _ in range(2):  # all are in use when the last one is set
        for tile in tiles:
            nisa.memset(tile, 1)
            nisa.tensor_copy(tile[:, 0:2], tile[:, 2:4])


@mistake(MemoryOverflow, "PSUM overflow on trn2", "2048 bytes per partition", "16384 of 16384", "2048 too many")
def nine_psum_banks(x):
    tiles = []
    for _ in range(9):
        tiles.append(nl.ndarray((128, 512), dtype=nl.float32, buffer=nl.psum))  # here
    for tile in tiles:
        nisa.memset(tile, 1)
    total = nl.zeros((128, 512), dtype=nl.float32, buffer=nl.sbuf)
    for tile in 2 * tiles:  # none can be read for the last time before all are there
        nisa.tensor_tensor(total, total, tile, nl.add)


@mistake(HbmOverflow, "trn2", "4398046511104", "103079215104")
def more_than_hbm(x):
    nl.ndarray((1 << 20, 1 << 20), dtype=nl.float32, buffer=nl.hbm)  # here


@mistake(InvalidAddress, "SBUF", "(100, 0)", "128")
def address_beyond_the_partitions(x):
    nl.ndarray((64, 4), dtype=nl.float32, address=(100, 0))  # here


@mistake(InvalidAddress, "PSUM", "(0, 16380)", "16384")
def address_beyond_psum(x):
    nl.ndarray((64, 4), dtype=nl.float32, buffer=nl.psum, address=(0, 16380))  # here


@mistake(InvalidOperand, "address", "12", "two ints")
def address_of_one_number(x):
    nl.ndarray((64, 4), dtype=nl.float32, address=12)  # here


@mistake(InvalidOperand, "address", "(0, 0)", "None for a tensor in HBM")
def address_in_hbm(x):
    nl.ndarray((64, 4), dtype=nl.float32, buffer=nl.hbm, address=(0, 0))  # here


@mistake(UninitializedRead, "data1", "float32 (64, 32) in sbuf", "never written", "memset")
def reads_what_nothing_wrote(x):
    tile, dst = sbuf(value=None), sbuf(value=None)
    nisa.tensor_tensor(dst, tile, tile, op=nl.add)  # here
    return stored(dst)


@mistake(UninitializedRead, "src", "never written")
def stores_what_nothing_wrote(x):
    tile = sbuf(value=None)
    out = nl.ndarray((64, 32), dtype=nl.float32, buffer=nl.shared_hbm)
    nisa.dma_copy(out, tile)  # here
    return out


@mistake(AccumulateUninitialized, "accumulate=True", "dst", "accumulate=False")
def accumulates_on_nothing(x):
    stationary, moving, dst = sbuf((64, 64)), sbuf(), psum(value=None)
    nisa.nc_matmul(dst, stationary, moving, accumulate=True)  # here
    tile = sbuf()
    nisa.tensor_copy(tile, dst)
    return stored(tile)


@mistake(UninitializedRead, "src", "hbm", "float32 (64, 32) in private_hbm", "never written")
def reads_device_memory_nothing_wrote(x):
    between = nl.ndarray((64, 32), dtype=nl.float32, buffer=nl.private_hbm)
    nisa.dma_copy(x, between)  # here


@mistake(UnwrittenOutput, "returns_what_nothing_wrote", "float32 (32, 32)", "nothing was ever written")
def returns_what_nothing_wrote(x):
    out = nl.ndarray((64, 32), dtype=nl.float32, buffer=nl.shared_hbm)  # here
    return out[0:32], x


@mistake(UnwrittenOutput, "(1, 32)")
def returns_a_part_that_nothing_wrote(x):
    out = nl.ndarray((64, 32), dtype=nl.float32, buffer=nl.shared_hbm)  # here
    nisa.dma_copy(out[0:63], x[0:63])
    return out[63:]


@mistake(InvalidReturn, "returns_a_tile", "SBUF", "shared_hbm")
def returns_a_tile(x):
    return nl.load(x)  # here


@mistake(InvalidReturn, "PSUM", "shared_hbm")
def returns_a_view_of_psum(x):
    tile = nl.zeros((8, 8), nl.float32, nl.psum)  # here
    return {"result": [tile[:, 0:4]]}


@mistake(InvalidReturn, "ndarray", "HBM")
def returns_an_array(x):  # here
    return X


@mistake(InvalidReturn, "function")
def returns_a_function(x):  # here
    return nl.add


KEPT: list = []


def keep(x):
    KEPT[:] = [nl.load(x), stored(nl.load(x))]
    return KEPT[1]


@mistake(StaleTensor, "data1", "ended", "test_errors_memory.py:", "argument")
def uses_a_tile_of_an_earlier_call(x):
    tile = sbuf()
    nisa.tensor_tensor(tile, KEPT[0], tile, op=nl.add)  # here


@mistake(StaleTensor, "src", "ended")
def uses_an_hbm_tensor_of_an_earlier_call(x):
    tile = sbuf()
    nisa.dma_copy(tile, KEPT[1][0:64])  # here


@mistake.parametrize
def test_mistake(mistake, mode, monkeypatch) -> None:
    nki.jit(keep)(X)
    check(mistake, mode, monkeypatch)
