"""The targets: those that come with nkilite, and files of the user's own in the same form.

Sources, named in the files by these short tags (public Neuron documentation unless stated otherwise):

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
  core-v3    about-neuron/arch/neuron-hardware/neuron-core-v3
  data-types about-neuron/arch/neuron-features/data-types

A figure that is published for one generation only and carried over to another says so. Times derived from
these figures are modelled, never measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from nkilite.errors import UnknownTarget
from nkilite.machine.chip import Target
from nkilite.machine.target_files import is_file, load, loaded, shipped

__all__ = ["TARGETS", "Target", "first_with", "get_target", "target_identity", "target_names"]

#: Targets that come with nkilite by name: older generations first, and before what inherits from them.
TARGETS: Mapping[str, Target] = MappingProxyType(shipped())

_BY_NAME = {alias: t for t in TARGETS.values() for alias in (t.name, *t.aliases)}


def get_target(name: str) -> Target:
    """The target of a name in any case (``trn1``, ``inf2``, ``trn2``, ``gen3`` ...), or of a file ``PATH.toml``.

    A file is read again when it has changed. A target that was loaded from one is found by its name, too.

    Raises:
        UnknownTarget: there is none of that name, and no such file; the message lists the choices.
        InvalidTarget: the file does not describe a target.
    """
    spelled = name.strip()
    target = _BY_NAME.get(spelled.lower())
    if target is None:
        target = load(spelled) if is_file(spelled) else loaded(spelled)
    if target is None:
        raise UnknownTarget(found=name, choices=", ".join(_BY_NAME))
    return target


def target_names() -> tuple[str, ...]:
    """The names of the targets that come with nkilite."""
    return tuple(TARGETS)


def target_identity(name: str) -> str:
    """What stands for a target in files that outlive a process: its name, and the digest of one from a file."""
    target = get_target(name)
    return target.name if TARGETS.get(target.name) is target else f"{target.name}@{target.digest}"


def first_with(has: Callable[[Target], object]) -> str:
    """The oldest target that has something, as messages name it; "another chip" if none does."""
    found = next((t for t in TARGETS.values() if has(t)), None)
    return f"{found.name} (gen{found.generation})" if found else "another chip"
