"""Every environment variable nkilite reads, typed and documented in one place.

Values are read when asked for, never at import: kernel files set NEURON_PLATFORM_TARGET_OVERRIDE while they load.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

try:
    import pwd
except ImportError:  # Windows
    pwd = None  # type: ignore[assignment]

DEFAULT_TARGET = "trn2"
_TARGET = "NEURON_PLATFORM_TARGET_OVERRIDE"
_CORES = "NEURON_LOGICAL_NC_CONFIG"
_RACES = "NKILITE_RACES"
_NAN = "NKILITE_NAN"
_ROUNDING = "NEURON_RT_STOCHASTIC_ROUNDING_EN"
_ROUNDING_SEED = "NEURON_RT_STOCHASTIC_ROUNDING_SEED"


def target() -> str:
    """NEURON_PLATFORM_TARGET_OVERRIDE: the modelled chip, by name (`nkilite targets` lists them) or as PATH.toml."""
    return os.environ.get(_TARGET) or DEFAULT_TARGET


def logical_cores() -> str:
    """NEURON_LOGICAL_NC_CONFIG: the cores of a launch that does not say (1 or 2); "" (default) means one."""
    return os.environ.get(_CORES, "")


def stochastic_rounding() -> bool:
    """NEURON_RT_STOCHASTIC_ROUNDING_EN: engines round stochastically ("1" or "true"), not to nearest."""
    return os.environ.get(_ROUNDING, "").lower() in ("1", "true")


def rounding_seed() -> str:
    """NEURON_RT_STOCHASTIC_ROUNDING_SEED: the seed of stochastic rounding, an int; "" (default) means 0."""
    return os.environ.get(_ROUNDING_SEED, "")


def check_nan() -> str:
    """NKILITE_NAN: launches look for NaN in what instructions write: "warn", "error", or "" and "off" (default).

    With "warn+inf" and "error+inf" also for infinities that instructions compute.
    """
    return os.environ.get(_NAN) or "off"


def use_target(name: str | None) -> None:
    """Make `name`, if any, the target of this process, as a command's option says."""
    if name:
        os.environ[_TARGET] = name


@contextmanager
def overridden_target(name: str) -> Iterator[None]:
    """Make `name` the target inside a `with` block."""
    before = os.environ.get(_TARGET)
    os.environ[_TARGET] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[_TARGET]
        else:
            os.environ[_TARGET] = before


def cpu() -> str:
    """NKILITE_CPU: the CPU feature level micro-kernels are compiled for.

    "native" (default) uses all the host has; "amx", "avx512_bf16", "avx512", "avx2", "vector128" name its levels.
    """
    return os.environ.get("NKILITE_CPU") or "native"


def optimize() -> str:
    """NKILITE_OPTIMIZE: which programs and micro-kernels are compiled well at once.

    "work" (default): those whose work pays for it, and the others when launches have paid; "always"; "never".
    """
    return os.environ.get("NKILITE_OPTIMIZE") or "work"


def cxx() -> str:
    """CXX: the command of the C++ compiler for custom operators; "" (default) means the first the system has."""
    return os.environ.get("CXX", "")


def tuned() -> str:
    """NKILITE_TUNED: a file of tuned configurations (exported, or a tuner's database) that launches take values for
    omitted parameters from; "" (default) means the defaults in the kernel's signature."""
    return os.environ.get("NKILITE_TUNED", "")


def num_threads() -> str:
    """NKILITE_NUM_THREADS: the threads a launch may use; "" (default) means the cores available to the process."""
    return os.environ.get("NKILITE_NUM_THREADS", "")


def recycled_bytes() -> int:
    """NKILITE_RECYCLE: the memory of outputs no longer in use to keep for later ones ("1G" by default, "0": none);
    -1 if the value is not a size."""
    return _bytes(os.environ.get("NKILITE_RECYCLE") or "1G")


def cache_enabled() -> bool:
    """NKILITE_CACHE: keep compiled kernels on disk ("0": neither read nor write the disk cache)."""
    return os.environ.get("NKILITE_CACHE", "1") != "0"


def cache_directory() -> str | None:
    """NKILITE_CACHE_DIR: where the disk cache is; by default `nkilite` in $XDG_CACHE_HOME or ~/.cache.

    None where the user has no home directory. As the XDG specification says, a relative $XDG_CACHE_HOME is ignored.
    """
    found = os.environ.get("NKILITE_CACHE_DIR")
    if found:
        path = os.path.expanduser(found)
        return None if path.startswith("~") else os.path.abspath(path)
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        home = _home()
        if home is None:
            return None
        base = os.path.join(home, ".cache")
    return os.path.join(base, "nkilite")


def _home() -> str | None:
    """The user's home directory: $HOME or what the list of users has, if absolute."""
    found = os.environ.get("HOME", "")
    if not os.path.isabs(found):
        try:
            found = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):  # Windows; a container's user
            found = os.path.expanduser("~") if os.name == "nt" else ""
    return found if os.path.isabs(found) else None


def specializations() -> int:
    """NKILITE_SPECIALIZATIONS: how many compiled specializations a kernel keeps (128 by default); what was used least
    recently goes first. -1 if the value is not a number."""
    found = os.environ.get("NKILITE_SPECIALIZATIONS") or "128"
    return int(found) if found.isdecimal() else -1


def cache_bytes() -> int:
    """NKILITE_CACHE_SIZE: the size of the disk cache ("1G" by default); what was used least recently goes first.

    -1 if the value is not a size.
    """
    return _bytes(os.environ.get("NKILITE_CACHE_SIZE") or "1G")


SIZES = "a number of bytes such as 4096, 512K, 100M or 2G"
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def _bytes(text: str) -> int:
    digits, unit = (text[:-1], _UNITS[text[-1].upper()]) if text[-1:].upper() in _UNITS else (text, 1)
    return int(digits) * unit if digits.isdecimal() else -1


def launch_settings() -> tuple[object, ...]:
    """The variables that decide what a launch runs, as they are: to be compared, at every launch."""
    return _get(_first), _get(_second), _get(_third), _get(_fourth), _get(_fifth), _get(_sixth), _get(_seventh)


def target_is_file() -> bool:
    """Whether the target is a file, which may have changed since it was read."""
    value = _get(_first)
    return value is not None and value[-5:] in (".toml", b".toml")


_names = (_TARGET, "NKILITE_CPU", "NKI_SIMULATOR", _CORES, _RACES, _ROUNDING, _NAN)
# The dictionary behind os.environ answers 15 times faster than os.environ itself.
_environment: Mapping[Any, Any] = getattr(os.environ, "_data", os.environ)
_get = _environment.get
_first, _second, _third, _fourth, _fifth, _sixth, _seventh = (
    _names if _environment is os.environ else map(os.environ.encodekey, _names)
)


_IGNORED = (
    "NEURON_FRAMEWORK_DEBUG", "NKI_COMPILER_FRONTEND", "NKI_DMA_TRANSPOSE_AS_PE_TRANSPOSE", "NKI_LNC1_SHARED_HBM",
    "NKI_PRECISE_FP", "NKI_PREFETCH_RING_SIZE",
)
_HONOURED = (_ROUNDING, _ROUNDING_SEED)


def ignored() -> list[str]:
    """Variables of the vendor's compiler and runtime (NEURON_RT_...) that are set and that nkilite does not honour."""
    return sorted(
        name for name, value in os.environ.items()
        if (name in _IGNORED or (name.startswith("NEURON_RT_") and name not in _HONOURED)) and value not in ("", "0")
    )


def simulator() -> bool:
    """NKI_SIMULATOR: run every kernel through nki.simulate ("1"), without changing the program that calls it."""
    return os.environ.get("NKI_SIMULATOR", "0") not in ("", "0")


def verify_passes() -> bool:
    """NKILITE_VERIFY: run the IR verifier after every pass ("1"); the test suite turns it on."""
    return os.environ.get("NKILITE_VERIFY", "0") not in ("", "0")


def races() -> str:
    """NKILITE_RACES: what is done about races between cores: "warn" (default), "error" or "off"."""
    return os.environ.get(_RACES) or "warn"


def fuse() -> bool:
    """NKILITE_FUSE: run chains of instructions a few partitions at a time ("0" runs one instruction after another).

    Read when a kernel is compiled: what a kernel object has already compiled stays as it is.
    """
    return os.environ.get("NKILITE_FUSE", "1") not in ("", "0")
