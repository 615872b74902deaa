"""Instructions of the public ISA that nkilite does not have yet: importable, and a clear error when called."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from nkilite.errors import UnsupportedError

# What is missing, by family; docs/compatibility.md repeats this list and a test keeps the two equal.
FAMILIES = {
    "several cores": ("core_barrier", "sendrecv"),
}

NAMES = tuple(sorted(name for names in FAMILIES.values() for name in names))


def _refusing(name: str) -> Callable[..., NoReturn]:
    def instruction(*args: Any, **kwargs: Any) -> NoReturn:
        raise UnsupportedError(feature=f"nisa.{name}")

    instruction.__name__ = instruction.__qualname__ = name
    instruction.__doc__ = f"nisa.{name} is not supported by nkilite yet: calling it raises UnsupportedError."
    return instruction


FUNCTIONS = {name: _refusing(name) for name in NAMES}
