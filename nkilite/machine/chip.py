"""The facts about a NeuronCore that limits, costs and the planner read: one `Target` each."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields

from nkilite.once import cached_property

__all__ = ["Target"]

_DIGITS = 16  # of a digest


@dataclass(frozen=True)
class Target:
    """One NeuronCore: sizes, limits, clocks, bandwidths, accepted dtypes and capabilities.

    nkilite/machine/targets/trn1.toml describes every field, with its unit and its source. The attributes of
    ``nl.tile_size`` carry the same names here.
    """

    name: str
    aliases: tuple[str, ...]
    generation: int
    device: str
    calibrated: bool
    missing_instructions: frozenset[str]
    missing_operators: frozenset[str]

    # --- memories -------------------------------------------------------------------------------------------------
    sbuf_partition_bytes: int
    sbuf_reserved_bytes: int

    # --- clocks ---------------------------------------------------------------------------------------------------
    tensor_ghz: float
    vector_ghz: float
    scalar_ghz: float
    gpsimd_ghz: float

    # --- data movement --------------------------------------------------------------------------------------------
    dma_bytes_per_ns: float
    device_hbm_bytes_per_ns: float
    hbm_bytes: int
    hbm_channels: int
    hbm_interleave_bytes: int
    cores_per_device: int
    max_logical_core_size: int

    # --- element types --------------------------------------------------------------------------------------------
    adjustable_exponent_bias: bool

    # --- Tensor Engine --------------------------------------------------------------------------------------------
    matmul_dtypes: frozenset[str]
    matmul_dst_dtypes: frozenset[str]
    matmul_moving_fmax_32bit: int
    matmul_moving_fmax_16bit: int
    pe_tile_sizes: tuple[int, ...]
    fp32_transpose_passes: int
    tensor_sustained_rate: float
    tensor_warmup_ns: float
    double_row_dtypes: frozenset[str]
    matmul_mx_dtypes: frozenset[str]
    matmul_sparse_dtypes: frozenset[str]
    matmul_sparse_speedup: float
    tensor_transpose_mode: bool
    accumulate_onto_any_write: bool
    tensor_results_cross_banks: bool
    tensor_stochastic_rounding: bool

    # --- Vector, Scalar and GpSimd Engines ------------------------------------------------------------------------
    vector_fast_dtypes: frozenset[str]
    vector_float32_speedup: float
    scalar_fast_dtypes: frozenset[str]
    activation_sbuf_cycles: int
    activation_psum_cycles: int
    scalar_engine_tensor_copy: bool
    scalar_engine_tensor_scalar_ops: frozenset[str]
    activation_scalar_bias: bool
    activation_reciprocal_bias: bool
    gpsimd_activation: bool
    vector_gpsimd_sbuf_parallel: bool
    vector_scalar_psum_parallel: bool
    random_engines: frozenset[str]
    random_state_engines: frozenset[str]
    random_cycles: float
    quantize_mx_spare_exponent: int

    # --- DMA capabilities -----------------------------------------------------------------------------------------
    hardware_dge: bool
    dma_gather_transpose: bool
    dma_priority: bool

    # --- the same on every generation so far ----------------------------------------------------------------------
    num_partitions: int
    unwritten_byte: int
    access_dimensions: int
    access_stride_max: int
    access_elements_max: int
    psum_banks: int
    psum_bank_bytes: int
    psum_min_align: int
    sbuf_min_align: int
    gemm_stationary_fmax: int
    gemm_moving_fmax: int
    bn_stats_fmax: int
    vector_transpose_max: int
    quadrant_partitions: int
    partitions_per_gpsimd_core: int
    pe_rows: int
    pe_columns: int
    fp32_matmul_passes: int
    matmul_min_cycles: int
    min_issue_cycles: int
    dynamic_issue_cycles: int
    gpsimd_start_cycles: int
    memory_access_cycles: int
    dependency_cycles: int
    full_bandwidth_stride_bytes: int
    dma_engines: int
    partitions_per_dma_engine: int
    dma_start_ns: float
    dma_descriptor_ns: float
    dma_store_bytes: int
    dma_trigger_ns: float
    dge_issue_ns: float
    software_dge_ns: float
    dma_recommended_bytes: int
    launch_ns: float
    teardown_ns: float
    capture_ns: float
    dma_transpose_efficiency_hbm: float
    dma_transpose_efficiency_sbuf: float

    # --- derived --------------------------------------------------------------------------------------------------
    @property
    def hbm_bytes_per_ns(self) -> float:
        """Device memory bandwidth divided evenly over the NeuronCores of the device."""
        return self.device_hbm_bytes_per_ns / self.cores_per_device

    @cached_property
    def digest(self) -> str:
        """What tells targets apart that have any field different, whatever their names: for keys of caches."""
        values = [(f.name, getattr(self, f.name)) for f in fields(self)]
        plain = [(name, sorted(v) if isinstance(v, frozenset) else v) for name, v in values]
        return hashlib.sha256(repr(plain).encode()).hexdigest()[:_DIGITS]

    @property
    def pmax(self) -> int:
        """Most partitions a tile can span."""
        return self.num_partitions

    @property
    def psum_partition_bytes(self) -> int:
        return self.psum_banks * self.psum_bank_bytes

    @property
    def psum_num_banks(self) -> int:
        return self.psum_banks

    @property
    def psum_bank_fmax(self) -> int:
        """float32 elements in one PSUM bank of one partition."""
        return self.psum_bank_bytes // 4

    @property
    def psum_fmax(self) -> int:
        """Deprecated name of `psum_bank_fmax`."""
        return self.psum_bank_fmax

    @property
    def psum_bank_fmax_bytes(self) -> int:
        return self.psum_bank_bytes

    @property
    def sbuf_size_bytes(self) -> int:
        """SBUF capacity over all partitions, the runtime's share included."""
        return self.num_partitions * self.sbuf_partition_bytes

    @property
    def sbuf_fmax_bytes(self) -> int:
        """Bytes of one SBUF partition that a kernel may use."""
        return self.sbuf_partition_bytes - self.sbuf_reserved_bytes

    @property
    def sbuf_fmax(self) -> int:
        """float32 elements of one SBUF partition that a kernel may use."""
        return self.sbuf_fmax_bytes // 4

    @property
    def total_available_sbuf_size(self) -> int:
        """Deprecated name of `sbuf_fmax_bytes`: per partition, despite the name."""
        return self.sbuf_fmax_bytes

    def start_partitions(self, partitions: int) -> tuple[int, ...]:
        """Partitions at which what a compute engine accesses may start, if it covers this many.

        More than 64 partitions start at 0; 33 to 64 at 0 or 64; up to 32 at any quadrant. Source: arch-v2,
        "Accessing SBUF/PSUM tensors using compute engines".
        """
        distance = self.quadrant_partitions
        while distance < partitions:
            distance *= 2
        return tuple(range(0, self.num_partitions, distance))

    def matmul_flops_per_ns(self, dtype: str) -> float:
        """Dense peak of the Tensor Engine for operands of `dtype`, in GFLOP/s, from clock and array size.

        `dtype` in `double_row_dtypes` or `matmul_mx_dtypes` gives the peak of that faster mode. Agrees with
        the published 92/23 (v2), 79/20/158 (v3) and 79/20/315 (v4) TFLOPS.
        """
        macs = self.pe_rows * self.pe_columns * self.tensor_ghz
        if dtype == "float32":
            macs /= self.fp32_matmul_passes
        elif dtype in self.matmul_mx_dtypes:
            macs *= 4
        elif dtype in self.double_row_dtypes:
            macs *= 2
        return 2 * macs
