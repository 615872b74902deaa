"""`nl.tile_size`: the size limits of the chip the current kernel is for."""

from __future__ import annotations

from nkilite import knobs
from nkilite.deprecation import deprecated
from nkilite.machine.target import Target, get_target
from nkilite.trace import active

__all__ = ["tile_size"]


def current_target() -> Target:
    """The target of the kernel being traced; outside a kernel the one the environment names."""
    builder = active.builder_or_none()
    return builder.target if builder is not None else get_target(knobs.target())


class TileSize:
    """Hardware limits, read from the current target each time they are asked for.

    Source: the public page nki.language.tile_size; the numbers are in nkilite/machine/target.py.
    """

    @property
    def pmax(self) -> int:
        """Most partitions of a tile."""
        return current_target().pmax

    @property
    def psum_bank_fmax(self) -> int:
        """float32 elements one PSUM bank holds in each partition."""
        return current_target().psum_bank_fmax

    @property
    def psum_fmax(self) -> int:
        """Deprecated name of psum_bank_fmax."""
        deprecated("nl.tile_size.psum_fmax", "nl.tile_size.psum_bank_fmax")
        return self.psum_bank_fmax

    @property
    def psum_bank_fmax_bytes(self) -> int:
        """Bytes one PSUM bank holds in each partition."""
        return current_target().psum_bank_fmax_bytes

    @property
    def psum_num_banks(self) -> int:
        """PSUM banks of a partition."""
        return current_target().psum_num_banks

    @property
    def psum_min_align(self) -> int:
        """Alignment of PSUM addresses, in bytes."""
        return current_target().psum_min_align

    @property
    def sbuf_min_align(self) -> int:
        """Alignment of SBUF addresses, in bytes."""
        return current_target().sbuf_min_align

    @property
    def sbuf_size_bytes(self) -> int:
        """Bytes of SBUF, all partitions together."""
        return current_target().sbuf_size_bytes

    @property
    def sbuf_fmax(self) -> int:
        """float32 elements a kernel can use in each SBUF partition."""
        return current_target().sbuf_fmax

    @property
    def sbuf_fmax_bytes(self) -> int:
        """Bytes a kernel can use in each SBUF partition."""
        return current_target().sbuf_fmax_bytes

    @property
    def total_available_sbuf_size(self) -> int:
        """Deprecated name of sbuf_fmax_bytes (per partition, despite the name)."""
        deprecated("nl.tile_size.total_available_sbuf_size", "nl.tile_size.sbuf_fmax_bytes")
        return self.sbuf_fmax_bytes

    @property
    def gemm_stationary_fmax(self) -> int:
        """Columns of a stationary matmul operand."""
        return current_target().gemm_stationary_fmax

    @property
    def gemm_moving_fmax(self) -> int:
        """Columns of a moving matmul operand."""
        return current_target().gemm_moving_fmax

    @property
    def bn_stats_fmax(self) -> int:
        """Elements per partition of one nisa.bn_stats."""
        return current_target().bn_stats_fmax

    def __repr__(self) -> str:
        return f"<nl.tile_size of {current_target().name}>"


tile_size = TileSize()
