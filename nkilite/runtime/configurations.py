"""Where launches find tuned values for the parameters a caller leaves out: one lookup per process, set by a tuner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nkilite import knobs
from nkilite.errors import NoTuner
from nkilite.later import later

if TYPE_CHECKING:
    from importlib import metadata as packages
else:
    packages = later("importlib.metadata")  # as long to import as tracing a kernel takes

ENTRY_POINT = "nkilite.configurations"

Lookup = Callable[[object, Mapping[str, object]], Mapping[str, object]]

_NOT_LOADED: Any = object()
_lookup: Lookup | None = _NOT_LOADED


def register(lookup: Lookup | None) -> Lookup | None:
    """Make `lookup(kernel, explicit arguments)` supply the arguments a launch leaves out; returns the one before.

    The lookup is asked at every launch, so it must be quick; it returns values by parameter name, and those the
    caller passed win. None turns it off.
    """
    global _lookup
    before = None
    with suppress(NoTuner):  # what is registered takes its place
        before = _current()
    _lookup = lookup
    return before


def none_registered() -> bool:
    """Whether launches are known to take no tuned values."""
    return _lookup is None


def configured(kernel: object, explicit: Mapping[str, object]) -> Mapping[str, object]:
    """Values for the parameters of `kernel` that are not in `explicit`; empty when no tuner is registered."""
    lookup = _lookup if _lookup is not _NOT_LOADED else _current()
    if lookup is None:
        return {}
    return {name: value for name, value in lookup(kernel, explicit).items() if name not in explicit}


def _current() -> Lookup | None:
    """The registered lookup; at first use NKILITE_TUNED makes the installed tuner's entry point supply it.

    Raises:
        NoTuner: it is set, and no tuner is installed.
    """
    global _lookup
    if _lookup is _NOT_LOADED:
        path, found = knobs.tuned(), None
        if path:
            tuners = list(packages.entry_points(group=ENTRY_POINT))
            if not tuners:
                raise NoTuner(path=path)
            found = tuners[-1].load()(path)
        _lookup = found
    return _lookup
