"""Every environment variable nkilite reads, typed and documented in one place.

Values are read when asked for, never at import: kernel files set NEURON_PLATFORM_TARGET_OVERRIDE while they load. A
value that a variable does not have is an InvalidSetting.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from nkilite.errors import InvalidSetting

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

NAN_CHECKS = ("warn", "error", "warn+inf", "error+inf", "off")


def _invalid(name: str, expected: str, fix: str = "") -> InvalidSetting:
    return InvalidSetting(variable=name, found=os.environ[name], expected=expected, fix=fix)


def _switch(name: str, default: bool) -> bool:
    """Whether a variable says yes."""
    found = os.environ.get(name, "").strip().lower()
    if not found:
        return default
    if found not in _SWITCH:
        raise _invalid(name, "1 or 0, true or false, on or off, yes or no")
    return _SWITCH[found]


_SWITCH = {
    "1": True, "true": True, "on": True, "yes": True,
    "0": False, "false": False, "off": False, "no": False,
}


def _choice(name: str, choices: Collection[str], default: str) -> str:
    found = os.environ.get(name) or default
    if found not in choices:
        raise _invalid(name, f"one of {', '.join(choices)}")
    return found


def _positive(name: str, expected: str, fix: str = "") -> int | None:
    found = os.environ.get(name)
    if not found:
        return None
    if not found.isdecimal() or int(found) < 1:
        raise _invalid(name, expected, fix)
    return int(found)


def _bytes(name: str, default: str) -> int:
    text = os.environ.get(name) or default
    digits, unit = (text[:-1], _UNITS[text[-1].upper()]) if text[-1].upper() in _UNITS else (text, 1)
    if not digits.isdecimal():
        raise _invalid(name, "a number of bytes such as 4096, 512K, 100M or 2G")
    return int(digits) * unit


_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def target() -> str:
    """NEURON_PLATFORM_TARGET_OVERRIDE: the modelled chip, by name (`nkilite targets` lists them) or as PATH.toml."""
    return os.environ.get(_TARGET) or DEFAULT_TARGET


def logical_cores() -> str:
    """NEURON_LOGICAL_NC_CONFIG: the cores of a launch that does not say (1 or 2); "" (default) means one."""
    return os.environ.get(_CORES, "")


def stochastic_rounding() -> bool:
    """NEURON_RT_STOCHASTIC_ROUNDING_EN: engines round stochastically ("1" or "true"), not to nearest."""
    return _switch(_ROUNDING, False)


def rounding_seed() -> int:
    """NEURON_RT_STOCHASTIC_ROUNDING_SEED: the seed of stochastic rounding; 0 by default."""
    try:
        return int(os.environ.get(_ROUNDING_SEED) or 0)
    except ValueError:
        raise _invalid(_ROUNDING_SEED, "an integer") from None


def check_nan() -> str:
    """NKILITE_NAN: launches look for NaN in what instructions write: "warn", "error" or "off" (default).

    With "warn+inf" and "error+inf" also for infinities that instructions compute.
    """
    return _choice(_NAN, NAN_CHECKS, "off")


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
    return _choice("NKILITE_OPTIMIZE", ("work", "always", "never"), "work")


def cxx() -> str:
    """CXX: the command of the C++ compiler for custom operators; "" (default) means the first the system has."""
    return os.environ.get("CXX", "")


def tuned() -> str:
    """NKILITE_TUNED: a file of tuned configurations (exported, or a tuner's database) that launches take values for
    omitted parameters from; "" (default) means the defaults in the kernel's signature."""
    return os.environ.get("NKILITE_TUNED", "")


def num_threads() -> int | None:
    """NKILITE_NUM_THREADS: the threads a launch may use; None (default) means the cores available to the process."""
    fix = "set it to 1 or more, or unset it to use every core available to the process"
    return _positive("NKILITE_NUM_THREADS", "a number of threads", fix)


def recycled_bytes() -> int:
    """NKILITE_RECYCLE: the memory of outputs no longer in use to keep for later ones ("1G" by default, "0": none)."""
    return _bytes("NKILITE_RECYCLE", "1G")


def cache_enabled() -> bool:
    """NKILITE_CACHE: keep compiled kernels on disk ("0": neither read nor write the disk cache)."""
    return _switch("NKILITE_CACHE", True)


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
    recently goes first."""
    return _positive("NKILITE_SPECIALIZATIONS", "a number above 0") or 128


def cache_bytes() -> int:
    """NKILITE_CACHE_SIZE: the size of the disk cache ("1G" by default); what was used least recently goes first."""
    return _bytes("NKILITE_CACHE_SIZE", "1G")


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
    return _switch("NKI_SIMULATOR", False)


def verify_passes() -> bool:
    """NKILITE_VERIFY: run the IR verifier after every pass ("1"); the test suite turns it on."""
    return _switch("NKILITE_VERIFY", False)


def races() -> str:
    """NKILITE_RACES: what is done about races between cores: "warn" (default), "error" or "off"."""
    return _choice(_RACES, ("warn", "error", "off"), "warn")


def fuse() -> bool:
    """NKILITE_FUSE: run chains of instructions a few partitions at a time ("0" runs one instruction after another).

    Read when a kernel is compiled: what a kernel object has already compiled stays as it is.
    """
    return _switch("NKILITE_FUSE", True)
