"""nki.language."""
from nkilite.dtypes import *  # noqa
from nkilite.dtypes import float32, bfloat16, int32, float16, uint8
from nkilite.ir.types import MemoryRegion
from nkilite.trace import active
from nkilite.dtypes import as_dtype
sbuf, psum, shared_hbm, hbm = MemoryRegion.sbuf, MemoryRegion.psum, MemoryRegion.shared_hbm, MemoryRegion.private_hbm
def ndarray(shape, dtype, buffer=sbuf, name="", address=None):
    return active.builder().allocate(buffer, tuple(shape), as_dtype(dtype), name=name, address=address)
