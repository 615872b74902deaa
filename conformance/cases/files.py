"""Makes the cases of a kernel file: every launch, in the target modes and the target the file sets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..case import OWN_MODES, TARGET_MODES, Case, Launch, Mode, Source
from ..sources import FileSource


@dataclass(frozen=True)
class Variant:
    """One way of calling a kernel of a file.

    Attributes:
        launch: the call.
        note: what tells it from the kernel's other variants (the operands' type).
        framework: "torch" or "jax" for that framework's CPU tensors.
        refused_on: targets for which a typed error is the right answer.
    """

    launch: Launch
    note: str = ""
    framework: str = ""
    refused_on: frozenset[str] = frozenset()

    @property
    def label(self) -> str:
        framework = f"[{self.framework}]" if self.framework else ""
        return " ".join(part for part in (self.launch.kernel, self.note, framework) if part)


def variants(launch: Launch, *frameworks: str, note: str = "") -> list[Variant]:
    """A launch with NumPy arrays, and again with the tensors of each framework."""
    return [Variant(launch, note, framework) for framework in ("", *frameworks)]


def file_cases(
    suite: str, path: Path, launches: Iterable[Variant], modes: tuple[Mode, ...] | None = None
) -> Iterator[Case]:
    """The cases of a file, in the given modes or in all that make sense for it."""
    source = FileSource(path)
    for variant in launches:
        yield Case(
            suite,
            variant.label,
            source,
            variant.launch,
            modes or launch_modes(source),
            refused_on=variant.refused_on,
            framework=variant.framework,
        )


def launch_modes(source: Source) -> tuple[Mode, ...]:
    """The modes of a source: its own target counts when it sets one."""
    return (*TARGET_MODES, *OWN_MODES) if source.sets_target else TARGET_MODES
