"""The CPU micro-kernels are compiled for: vector width and features, and lower levels of it for testing."""

from __future__ import annotations

import ctypes
import functools
import platform
from dataclasses import dataclass, replace

from nkilite import knobs
from nkilite.codegen import llvm
from nkilite.errors import ArgumentError

LINE = 64  # bytes of a cache line


class UnknownCpuLevel(ArgumentError, ValueError):
    template = "NKILITE_CPU={found!r} is not available on this machine; available: {choices}."
    remedy = "unset NKILITE_CPU, or choose one of them."


@dataclass(frozen=True)
class Host:
    """A feature level.

    Attributes:
        level: "amx", "avx512", "avx2", "vector128" or "neon".
        cpu: LLVM processor name.
        features: LLVM feature string.
        vector_bits: width of a native vector register.
        registers: number of vector registers.
        fma: fused multiply-add instructions exist.
        f16c: float16 <-> float32 conversion instructions exist.
        amx_bf16: tile matrix instructions exist.
    """

    level: str
    cpu: str
    features: str
    vector_bits: int
    registers: int
    fma: bool
    f16c: bool
    amx_bf16: bool = False

    @property
    def lanes(self) -> int:
        """float32 elements per native vector."""
        return self.vector_bits // 32


def _initialize() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()


_AVX512 = ("avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd")
_V2 = "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16"
_V3 = _V2 + ",+avx,+avx2,+fma,+f16c,+bmi,+bmi2,+lzcnt,+movbe"
_V4 = _V3 + "".join(f",+{f}" for f in _AVX512)


_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA = 158, 0x1023, 18  # x86-64 Linux


def _tile_registers_permitted() -> bool:
    """Ask Linux for the tile registers, which it grants per process and on request only."""
    if platform.system() != "Linux":
        return False
    return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_STATE, _TILE_DATA) == 0


@functools.cache
def levels() -> dict[str, Host]:
    """Every feature level there is code for, best first of each architecture: this machine need not run it."""
    v4 = _V4 + ",-prefer-256-bit"
    # Tuned as Sapphire Rapids: without it LLVM prefers 256-bit vectors on several AVX-512 parts.
    return {
        "amx": Host("amx", "sapphirerapids", v4 + ",+amx-tile,+amx-bf16", 512, 32, True, True, amx_bf16=True),
        "avx512": Host("avx512", "sapphirerapids", v4, 512, 32, True, True),
        "avx2": Host("avx2", "x86-64-v3", _V3, 256, 16, True, True),
        "vector128": Host("vector128", "x86-64-v2", _V2, 128, 16, False, False),
        "neon": Host("neon", "generic", "+neon", 128, 32, True, True),
    }


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
    if all(has.get(f) for f in _AVX512):
        cpu = levels()["avx512"].cpu if has.get("avx512bf16") else "skylake-avx512"
        if has.get("amx-tile") and has.get("amx-bf16") and _tile_registers_permitted():
            found["amx"] = replace(levels()["amx"], cpu=cpu)
        found["avx512"] = replace(levels()["avx512"], cpu=cpu)
    if has.get("avx2") and has.get("fma") and has.get("f16c"):
        found["avx2"] = levels()["avx2"]
    found["vector128"] = levels()["vector128"]
    return {level: _without(host, [f for f, there in has.items() if not there]) for level, host in found.items()}


def _without(host: Host, features: list[str]) -> Host:
    """A level without features that its processor has in LLVM's tables, and this machine has not.

    Zen 4 has bfloat16 like Sapphire Rapids, whose float16 instructions it does not have.
    """
    return replace(host, features=",".join([host.features, *(f"-{f}" for f in sorted(features))]))


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
