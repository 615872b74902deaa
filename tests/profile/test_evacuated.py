"""What PSUM has no room for, in programs that the vendor's compiler manages."""

from __future__ import annotations

import numpy as np
import pytest

import nkilite as nki
from nkilite import beta1
from nkilite.beta1 import isa as nisa
from nkilite.beta1 import language as nl


@beta1.jit
def kept(x, count, reads):
    """`count` products, each a bank of PSUM, which are read in later loops."""
    out = nl.ndarray((reads, 128, 512), dtype=x.dtype, buffer=nl.shared_hbm)
    tile = nl.load(x)
    products = [nisa.nc_matmul(tile[:, nl.ds(128 * (i % 4), 128)], tile) for i in range(count)]
    for read in range(reads):
        total = nl.zeros((128, 512), dtype=x.dtype, buffer=nl.sbuf)
        for product in products:
            total[...] = nl.add(total, product)
        nl.store(out[read], total)
    return out


@pytest.mark.parametrize(("count", "reads", "copies"), [(8, 2, 0), (12, 2, 4), (12, 1, 0)])
def test_what_does_not_fit_is_copied_to_sbuf(count: int, reads: int, copies: int) -> None:
    """All but what the banks hold; not what is read once, which can be read at once."""
    found = nki.profile(kept, np.zeros((128, 512), np.float32), count, reads, target="trn2")
    names = [found.opcode(i) for i in range(len(found.workload))]
    assert names.count("tensor_copy") == copies
    assert found.overflow is None or reads == 1
