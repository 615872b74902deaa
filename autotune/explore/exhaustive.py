"""Every configuration of a small space, one after the other."""

from __future__ import annotations

from autotune.context import canonical
from autotune.space import Configuration, Space


class BruteForce:
    """Every configuration of the space, in its order."""

    def __init__(self, space: Space) -> None:
        self._remaining = iter(space)
        self._seen: set[str] = set()

    def ask(self) -> Configuration | None:
        """The next configuration; None after the last."""
        return next((c for c in self._remaining if canonical(c) not in self._seen), None)

    def see(self, configuration: Configuration) -> None:
        """Do not suggest a configuration that somebody else tries."""
        self._seen.add(canonical(configuration))

    def tell(self, configuration: Configuration, values: tuple[float, ...] | None) -> None:
        """Learns only that this one is done."""
        self._seen.add(canonical(configuration))
