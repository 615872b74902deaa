"""nki.compiler of Beta 1: allocation functions and compiler directives.

Where a tile lies has no effect on what a kernel computes here: the planner places it by its life, so that address
functions are not called. The directives steer the vendor's compiler and have no effect either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from nkilite.beta1.creation import Placement
from nkilite.beta1.keywords import check
from nkilite.compiler.directives import enable_stack_allocator, force_auto_alloc, skip_middle_end_transformations
from nkilite.ir.types import MemoryRegion
from nkilite.language.program import no_reorder

__path__: list[str] = []  # a package, so that imports below it reach the finder of nkilite.compat

__all__ = [
    "allocation_scope",
    "enable_stack_allocator",
    "force_auto_alloc",
    "multi_buffer",
    "no_reorder",
    "psum",
    "sbuf",
    "skip_middle_end_transformations",
]


class Memory:
    """`nki.compiler.sbuf` or `psum`: a memory, and ways to allocate in it."""

    def __init__(self, region: MemoryRegion) -> None:
        self.region = region

    def alloc(self, func: Callable[..., object]) -> Placement:
        """Tiles placed by a function of their block indices."""
        return Placement(self.region)

    def mod_alloc(self, **given: object) -> Placement:
        """Tiles placed round robin from a base address. Raises UnknownKeyword."""
        banks = () if self.region is MemoryRegion.sbuf else ("base_bank", "num_bank_tiles")
        known = (*banks, "base_addr", "base_partition", "num_par_tiles", "num_free_tiles")
        check(f"nki.compiler.{self.region.name}.mod_alloc", known, given)
        return Placement(self.region)

    def auto_alloc(self) -> Placement:
        """Tiles placed by the compiler."""
        return Placement(self.region)


sbuf, psum = Memory(MemoryRegion.sbuf), Memory(MemoryRegion.psum)


@contextmanager
def allocation_scope(*_: object, **__: object) -> Iterator[None]:
    """A scope for tiles, whose lives decide here anyway."""
    yield


def multi_buffer(factor: int = 2) -> AbstractContextManager[None]:
    """A directive to the vendor's compiler: buffers follow from the lives of tiles here."""
    return allocation_scope()
