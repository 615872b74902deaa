"""The CPU micro-kernels are compiled for: vector width and features, and lower levels of it for testing."""

from __future__ import annotations

import ctypes
import functools
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import Enum

from nkilite import knobs
from nkilite.errors import ArgumentError
from nkilite.host import llvm


class UnknownCpuLevel(ArgumentError, ValueError):
    template = "NKILITE_CPU={found!r} is not available on this machine; available: {choices}."
    remedy = "unset NKILITE_CPU, or choose one of them."


class Products(Enum):
    """How a CPU multiplies matrices of bfloat16, of which each has the means of those before it."""

    vectors = "vectors"  # with multiply-adds of float32
    pairs = "pairs"  # with dot products of two pairs, added to float32
    tiles = "tiles"  # with a unit for tiles of 16 rows of 32


@dataclass(frozen=True)
class Host:
    """A feature level.

    Attributes:
        level: "amx", "avx512_bf16", "avx512", "avx2", "vector128" or "neon".
        cpu: LLVM processor name.
        features: LLVM feature string.
        tune: LLVM processor name whose instruction timings decide the order of instructions; "" for that of cpu.
        vector_bits: width of a native vector register.
        registers: number of vector registers.
        fma: fused multiply-add instructions exist.
        f16c: float16 <-> float32 conversion instructions exist.
        products: how it multiplies bfloat16.
    """

    level: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    fma: bool
    f16c: bool
    products: Products = Products.vectors
    tune: str = ""

    @property
    def rounds_bfloat16(self) -> bool:
        """Whether an instruction rounds float32 to bfloat16."""
        return "+avx512bf16" in self.features

    @property
    def lanes(self) -> int:
        """float32 elements per native vector."""
        return self.vector_bits // 32


def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


_V2 = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16"
_V3 = _V2 + ",+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
# Without the last, LLVM prefers 256-bit vectors on several parts.
_V4 = _V3 + ",+avx512f,+avx512bw,+avx512dq,+avx512vl,+avx512cd,-prefer-256-bit"
_PAIRS = ("avx512bf16",)
_TILES = ("amx-tile", "amx-bf16")
# What some parts with AVX-512 have beside it, no two makers the same: asked for one by one, because the name of a
# processor stands for all that it has.
_BESIDE_AVX512 = (
    "avx512bitalg", "avx512fp16", "avx512ifma", "avx512vbmi", "avx512vbmi2", "avx512vnni",
    "avx512vpopcntdq", "gfni", "prfchw",
)


_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA = 158, 0x1023, 18  # x86-64 Linux


def _tile_registers_permitted() -> bool:
    """Ask Linux for the tile registers, which it grants per process and on request only."""
    if platform.system() != "Linux":
        return False
    result: bool = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA) == 0
    return result


def _with(features: str, more: Iterable[str]) -> str:
    return features + "".join(f",+{name}" for name in more)


def _runs(features: str, has: Mapping[str, bool]) -> bool:
    return all(has.get(name[1:]) for name in features.split(",") if name[0] == "+")


@functools.cache
def levels() -> dict[str, Host]:
    """Every feature level there is code for, best first of each architecture: this machine need not run it."""
    widest = Host("avx512", "x86-64-v4", _with(_V4, _BESIDE_AVX512), 512, 32, True, True, tune="sapphirerapids")
    return {
        "amx": _multiplying(widest, "amx", Products.tiles, (*_PAIRS, *_TILES)),
        "avx512_bf16": _multiplying(widest, "avx512_bf16", Products.pairs, _PAIRS),
        "avx512": widest,
        "avx2": Host("avx2", "x86-64-v3", _V3, 256, 16, True, True),
        "vector128": Host("vector128", "x86-64-v2", _V2, 128, 16, False, False),
        "neon": Host("neon", "generic", "+neon", 128, 32, True, True),
    }


def _multiplying(host: Host, level: str, products: Products, more: Iterable[str]) -> Host:
    return replace(host, level=level, features=_with(host.features, more), products=products)


@functools.cache
def available() -> dict[str, Host]:
    """The feature levels this machine can run, best first."""
    _initialize()
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        features = llvm.get_host_cpu_features().flatten()
        return {"neon": replace(levels()["neon"], cpu=llvm.get_host_cpu_name(), features=features)}
    if machine not in ("x86_64", "amd64"):
        return {"vector128": Host("vector128", llvm.get_host_cpu_name(), "", 128, 16, False, False)}
    has = llvm.get_host_cpu_features()
    found = {}
    if _runs(_V4, has):
        beside = [f for f in _BESIDE_AVX512 if has.get(f)]
        widest = replace(levels()["avx512"], features=_with(_V4, beside))
        pairs = [f for f in _PAIRS if has.get(f)]
        if all(has.get(f) for f in _TILES) and _tile_registers_permitted():
            found["amx"] = _multiplying(widest, "amx", Products.tiles, (*pairs, *_TILES))
        rest = {"avx512": widest}
        if pairs:
            dots = {"avx512_bf16": _multiplying(widest, "avx512_bf16", Products.pairs, pairs)}
            # Zen makes a dot product in the time of a multiply-add; Intel's cores take that of four.
            rest = dots | rest if llvm.get_host_cpu_name().startswith("znver") else rest | dots
        found |= rest
    if _runs(_V3, has):
        found["avx2"] = levels()["avx2"]
    found["vector128"] = levels()["vector128"]
    return found


def host() -> Host:
    """The level chosen by NKILITE_CPU ("native": the best available).

    Raises:
        UnknownCpuLevel: the level does not exist here.
    """
    found = available()
    wanted = knobs.cpu()
    if wanted == "native":
        return next(iter(found.values()))
    if wanted not in found:
        raise UnknownCpuLevel(found=wanted, choices=", ".join(["native", *found]))
    return found[wanted]
