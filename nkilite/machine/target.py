"""Every per-generation fact about the chip, as data: one `Target` per NeuronCore generation.

Sources, named in the comments by these short tags (public Neuron documentation unless stated otherwise):

  arch-v2    nki/guides/architecture/trainium_inferentia2_arch
  arch-v3    nki/guides/architecture/trainium2_arch
  arch-v4    nki/guides/architecture/trainium3_arch
  isa        nki/api/nki.isa and its stub (0.7)
  isa-2.26   general/nki/api/nki/isa/__init__.py of aws-neuron-sdk 2.26, "Estimated instruction cost"
  tile_size  nki/api/nki.language.tile_size
  alloc      general/nki/nki_direct_allocation_guide of aws-neuron-sdk 2.26
  KLR        leanprover/KLR on GitHub, KLR/Trace.lean (constants of `nl.tile_size`)
  dma-bw     nki/deep-dives/nki-dma-bandwidth-guide
  dma        nki/get-started/about/nki-dma-overview
  dge        nki/deep-dives/nki-dge
  perf       nki/deep-dives/nki_perf_guide

A figure that is published for one generation only and carried over to another says so. Times derived from
these figures are modelled, never measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from nkilite.errors import UnknownTarget

__all__ = ["TARGETS", "Target", "first_with", "get_target"]

KIB = 1024
GIB = 1 << 30


@dataclass(frozen=True)
class Target:
    """One NeuronCore generation: sizes, limits, clocks, bandwidths, accepted dtypes and capabilities.

    Sizes are bytes per partition unless the name says otherwise, clocks GHz, bandwidths bytes per
    nanosecond (numerically GB/s), latencies nanoseconds or engine cycles as named. Dtypes are canonical
    names such as ``"bfloat16"``. The attributes of ``nl.tile_size`` carry the same names here.
    """

    name: str
    aliases: tuple[str, ...]
    generation: int
    device: str
    #: Names of nisa instructions, and of ALU operators of tensor_scalar and its kin, that it does not have.
    missing_instructions: frozenset[str]
    missing_operators: frozenset[str]

    # --- memories ------------------------------------------------------------------------------------
    sbuf_partition_bytes: int
    #: Kept by the runtime at the top of each SBUF partition (dynamic-DMA scratch and the like).
    sbuf_reserved_bytes: int

    # --- clocks --------------------------------------------------------------------------------------
    tensor_ghz: float
    vector_ghz: float
    scalar_ghz: float
    gpsimd_ghz: float

    # --- data movement -------------------------------------------------------------------------------
    #: Sustained by one DMA engine on large contiguous buffers.
    dma_bytes_per_ns: float
    #: Bandwidth and size of the device memory, which the NeuronCores of the device share.
    device_hbm_bytes_per_ns: float
    hbm_bytes: int
    cores_per_device: int
    max_logical_core_size: int

    # --- Tensor Engine -------------------------------------------------------------------------------
    matmul_dtypes: frozenset[str]
    matmul_dst_dtypes: frozenset[str]
    #: Longest moving free dimension that one matmul writes to a float32 dst, and to a 16-bit one.
    matmul_moving_fmax_32bit: int
    matmul_moving_fmax_16bit: int
    #: Row and column tile sizes the processing-element array can be cut into.
    pe_tile_sizes: tuple[int, ...]
    #: Passes over the array that a float32 transpose takes, against 1 for 16-bit data.
    fp32_transpose_passes: int
    double_row_dtypes: frozenset[str]
    matmul_mx_dtypes: frozenset[str]
    tensor_transpose_mode: bool
    accumulate_onto_any_write: bool
    #: Whether a result of the Tensor Engine may lie in several PSUM banks.
    tensor_results_cross_banks: bool

    # --- Vector, Scalar and GpSimd Engines -----------------------------------------------------------
    #: Dtypes that switch the Vector Engine to its 2x/4x modes; empty where there is none.
    vector_fast_dtypes: frozenset[str]
    #: Dtypes that run tensor_copy and tensor_scalar at twice the rate on the Scalar Engine.
    scalar_fast_dtypes: frozenset[str]
    scalar_engine_tensor_copy: bool
    #: What tensor_scalar the Scalar Engine runs: operators joined by "+", or "any" that it has.
    scalar_engine_tensor_scalar_ops: frozenset[str]
    activation_scalar_bias: bool
    activation_reciprocal_bias: bool
    vector_gpsimd_sbuf_parallel: bool
    vector_scalar_psum_parallel: bool
    #: Engines that make random numbers, and those whose generators' state can be set and read.
    random_engines: frozenset[str]
    random_state_engines: frozenset[str]
    #: Vector Engine cycles per random number of a lane.
    random_cycles: float

    # --- DMA capabilities ----------------------------------------------------------------------------
    hardware_dge: bool
    #: Whether a DMA transpose can gather rows by index.
    dma_gather_transpose: bool
    dma_priority: bool

    # --- the same on every generation so far -----------------------------------------------------------
    num_partitions: int = 128  # arch-v2: both memories have 128 partitions
    #: What a compute engine reads or writes per partition (arch-v2, "Accessing SBUF/PSUM tensors using compute
    #: engines" and "Vector Engine"): free dimensions, the largest stride along one, and elements in SBUF.
    access_dimensions: int = 4
    access_stride_max: int = (1 << 15) - 1  # int16, in elements
    access_elements_max: int = 1 << 16
    psum_banks: int = 8  # arch-v2: 16 KiB per partition in 8 banks
    psum_bank_bytes: int = 2 * KIB
    psum_min_align: int = 4  # KLR
    sbuf_min_align: int = 1  # KLR
    gemm_stationary_fmax: int = 128  # arch-v2: one column of processing elements per stationary column
    gemm_moving_fmax: int = 512  # arch-v2: one PSUM bank of float32
    bn_stats_fmax: int = 512  # isa
    vector_transpose_max: int = 32  # isa: the Vector Engine transposes 32x32 blocks
    quadrant_partitions: int = 32  # arch-v2: start partitions and shuffles work on quadrants of 32
    partitions_per_gpsimd_core: int = 16  # arch-v2
    pe_rows: int = 128  # arch-v2
    pe_columns: int = 128
    #: A matmul with a float32 operand takes this many passes (arch-v2 "roughly 4x"; isa-2.26).
    fp32_matmul_passes: int = 4
    #: Moving columns per cycle are 1; a short moving tensor still holds the array this long (arch-v2).
    matmul_min_cycles: int = 64

    min_issue_cycles: int = 64  # isa-2.26: MIN_II, the shortest initiation interval of an instruction
    dynamic_issue_cycles: int = 600  # isa-2.26: MIN_II_DYNAMIC, operand address from a register
    gpsimd_start_cycles: int = 150  # isa-2.26: GPSIMD_START
    memory_access_cycles: int = 60  # arch-v2: starting an SBUF or PSUM access; carried over to v3, v4
    #: Issue-to-issue interval of one-element Scalar Engine instructions that each read the previous result:
    #: what it costs to hand a result to its consumer. Published for v2 (perf, 264 cycles); carried over.
    dependency_cycles: int = 264
    #: An innermost stride beyond this many bytes halves SBUF and PSUM bandwidth (arch-v2; carried over).
    full_bandwidth_stride_bytes: int = 16

    dma_engines: int = 16  # dma: per NeuronCore, v2 to v4
    partitions_per_dma_engine: int = 8  # dma: 128 partitions over 16 engines
    #: dma-bw: descriptor set-up, synchronization and semaphore-to-start, cross-engine.
    dma_start_ns: float = 1300.0
    #: A descriptor (one contiguous run of bytes) holds its DMA engine this much longer than its bytes take. Read off
    #: published trn2 profiles: 2 KiB in 97 ns (dma, example 2), which leaves 8; the packet times of versions 2 and 3
    #: in the kernel-optimization tutorial leave 7.6 for 512 bytes and 3.5 for 2 KiB. Carried over to v2 and v4.
    dma_descriptor_ns: float = 7.0
    #: A DMA instruction holds the generator of its descriptors this long: published for the hardware DGE (dge), and
    #: the distance of software triggers in the kernel-optimization tutorial (version 2, zoomed).
    dge_issue_ns: float = 600.0
    dma_recommended_bytes: int = 2 * KIB  # dma-bw: minimum recommended per partition
    #: What a launch adds before the first and after the last instruction: 17 + 5 us in the profiles of the fused
    #: mamba tutorial (trn1); carried over.
    launch_ns: float = 17_000.0
    teardown_ns: float = 5_000.0
    dma_transpose_efficiency_hbm: float = 0.9  # arch-v3: HBM to SBUF transpose against a plain copy
    dma_transpose_efficiency_sbuf: float = 0.5  # arch-v3: SBUF to SBUF

    # --- derived ---------------------------------------------------------------------------------------
    @property
    def hbm_bytes_per_ns(self) -> float:
        """Device memory bandwidth divided evenly over the NeuronCores of the device."""
        return self.device_hbm_bytes_per_ns / self.cores_per_device

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


_BASE_MATMUL_DTYPES = frozenset(
    {"float8_e4m3", "float8_e5m2", "bfloat16", "float16", "tfloat32", "float32"}  # isa: nc_matmul
)
_HALF = frozenset({"bfloat16", "float16"})
_FP8 = frozenset({"float8_e4m3", "float8_e5m2"})
_NONE: frozenset[str] = frozenset()
_SINCE_V3 = frozenset({"range_select", "nonzero_with_count", "core_barrier", "sendrecv", "sendrecv_compute"})  # isa
_SINCE_V4 = frozenset({"activate2", "exponential", "nc_matmul_mx", "quantize_mx", "rand2"})  # isa
_OPERATORS_SINCE_V4 = frozenset({"abs_max", "abs_min", "relu", "square"})  # isa; NKI release notes, 0.4

_TRN1 = Target(
    name="trn1",
    aliases=("inf2", "gen2"),
    generation=2,
    device="Trainium / Inferentia2",
    missing_instructions=_SINCE_V3 | _SINCE_V4,
    missing_operators=_OPERATORS_SINCE_V4,
    sbuf_partition_bytes=192 * KIB,  # arch-v2: 24 MiB
    sbuf_reserved_bytes=16 * KIB,  # alloc
    tensor_ghz=2.8,  # arch-v2, table of engines
    vector_ghz=1.12,
    scalar_ghz=1.4,
    gpsimd_ghz=1.4,
    dma_bytes_per_ns=17.0,  # dma-bw
    device_hbm_bytes_per_ns=820.0,  # arch-v2
    hbm_bytes=32 * GIB,  # arch-v2
    cores_per_device=2,
    max_logical_core_size=1,
    matmul_dtypes=_BASE_MATMUL_DTYPES,
    matmul_dst_dtypes=frozenset({"float32"}),  # isa: nc_matmul
    matmul_moving_fmax_32bit=512,  # isa: nc_matmul
    matmul_moving_fmax_16bit=512,
    pe_tile_sizes=(64, 128),  # isa: nc_matmul, tiling mode
    fp32_transpose_passes=4,  # no transpose mode: an ordinary float32 matmul
    double_row_dtypes=_NONE,
    matmul_mx_dtypes=_NONE,
    tensor_transpose_mode=False,
    accumulate_onto_any_write=False,  # isa: nc_matmul, accumulation after a non-matmul write is undefined
    tensor_results_cross_banks=False,  # arch-v2: a matmul writes to one bank
    vector_fast_dtypes=_NONE,
    scalar_fast_dtypes=_NONE,
    scalar_engine_tensor_copy=False,  # isa: tensor_copy
    scalar_engine_tensor_scalar_ops=_NONE,  # isa: tensor_scalar speaks of v3
    activation_scalar_bias=False,  # isa: activation, bias must be a [N, 1] vector
    activation_reciprocal_bias=False,  # nki.api.shared: engine selection
    vector_gpsimd_sbuf_parallel=False,  # arch-v2: the two serialize on SBUF
    vector_scalar_psum_parallel=False,  # arch-v2: the two serialize on PSUM
    random_engines=frozenset({"vector"}),  # isa: rng
    random_state_engines=_NONE,  # isa: rand_set_state
    random_cycles=1.0,
    hardware_dge=False,
    dma_gather_transpose=False,
    dma_priority=False,
)

_TRN2 = replace(
    _TRN1,
    name="trn2",
    aliases=("gen3",),
    generation=3,
    device="Trainium2",
    missing_instructions=_SINCE_V4,
    sbuf_partition_bytes=224 * KIB,  # arch-v3: 28 MiB
    sbuf_reserved_bytes=16 * KIB + 8,  # KLR: 212,984 usable
    tensor_ghz=2.4,  # arch-v3, table of engines
    vector_ghz=0.96,
    scalar_ghz=1.2,
    gpsimd_ghz=1.2,
    dma_bytes_per_ns=23.0,  # dma-bw
    device_hbm_bytes_per_ns=3000.0,  # arch-v3
    hbm_bytes=96 * GIB,  # arch-v3
    cores_per_device=8,
    max_logical_core_size=2,  # nki/get-started/about/lnc
    pe_tile_sizes=(32, 64, 128),  # isa: nc_matmul, tiling mode
    fp32_transpose_passes=2,  # arch-v3: transpose mode is 2x faster in float32
    double_row_dtypes=_FP8,  # arch-v3
    tensor_transpose_mode=True,  # arch-v3
    vector_fast_dtypes=_HALF,  # arch-v3: Vector Engine performance mode
    scalar_engine_tensor_copy=True,  # arch-v3: bit-accurate copies
    scalar_engine_tensor_scalar_ops=frozenset({"multiply+add", "multiply", "add"}),  # isa: tensor_scalar
    activation_scalar_bias=True,  # isa: activation
    activation_reciprocal_bias=True,
    vector_gpsimd_sbuf_parallel=True,  # arch-v3: both restrictions lifted
    vector_scalar_psum_parallel=True,
    random_engines=frozenset({"vector", "gpsimd"}),  # isa: rng
    random_state_engines=frozenset({"gpsimd"}),  # isa: rand_set_state
    hardware_dge=True,  # arch-v3
    dma_gather_transpose=True,  # isa: dma_transpose
)

_TRN3 = replace(
    _TRN2,
    name="trn3",
    aliases=("gen4",),
    generation=4,
    device="Trainium3",
    missing_instructions=_NONE,
    missing_operators=_NONE,
    sbuf_partition_bytes=256 * KIB,  # arch-v4: 32 MiB
    sbuf_reserved_bytes=16 * KIB + 8,  # KLR: 245,752 usable
    tensor_ghz=2.4,  # arch-v4, table of engines
    vector_ghz=1.2,
    scalar_ghz=1.2,
    gpsimd_ghz=1.2,
    dma_bytes_per_ns=33.0,  # dma-bw
    device_hbm_bytes_per_ns=4700.0,  # arch-v4
    hbm_bytes=144 * GIB,  # arch-v4
    matmul_dtypes=_BASE_MATMUL_DTYPES | {"float8_e4m3fn"},  # isa: nc_matmul
    matmul_dst_dtypes=frozenset({"float32", "bfloat16"}),  # arch-v4: BF16 results in PSUM
    matmul_moving_fmax_32bit=4096,  # isa: nc_matmul, all eight PSUM banks
    matmul_moving_fmax_16bit=8192,
    double_row_dtypes=_FP8 | {"float8_e4m3fn"},  # isa: nc_matmul
    matmul_mx_dtypes=frozenset({"float8_e5m2_x4", "float8_e4m3fn_x4", "float4_e2m1fn_x4"}),  # arch-v4
    accumulate_onto_any_write=True,  # isa: nc_matmul, the restriction names v2 and v3 only
    tensor_results_cross_banks=True,  # isa: nc_matmul, moving free sizes of all eight banks
    vector_fast_dtypes=_HALF | _FP8 | {"float8_e4m3fn"},  # arch-v4, table of engines: BF16/FP16/FP8
    scalar_fast_dtypes=_HALF,  # arch-v4: Scalar Engine performance mode
    scalar_engine_tensor_scalar_ops=frozenset({"any"}),  # arch-v4: same instruction as on the Vector Engine
    random_state_engines=frozenset({"gpsimd", "vector"}),  # isa: rand_set_state
    random_cycles=0.25,  # arch-v4: four 32-bit values per lane and cycle
    dma_priority=True,  # isa: dma_copy
)

#: Targets by canonical name, oldest first.
TARGETS: Mapping[str, Target] = MappingProxyType({t.name: t for t in (_TRN1, _TRN2, _TRN3)})

_BY_NAME = {alias: t for t in TARGETS.values() for alias in (t.name, *t.aliases)}


def get_target(name: str) -> Target:
    """The target called `name`: ``trn1``, ``inf2``, ``trn2``, ``trn3`` or ``gen2`` to ``gen4``, in any case.

    Raises:
        UnknownTarget: `name` is none of these; the message lists the choices.
    """
    target = _BY_NAME.get(name.strip().lower())
    if target is None:
        raise UnknownTarget(found=name, choices=", ".join(_BY_NAME))
    return target


def first_with(has: Callable[[Target], Any]) -> str:
    """The oldest target that has something, as messages name it; "another chip" if none does."""
    found = next((t for t in TARGETS.values() if has(t)), None)
    return f"{found.name} (gen{found.generation})" if found else "another chip"
