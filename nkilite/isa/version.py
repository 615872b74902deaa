"""Which NeuronCore a kernel is specialized for."""

from __future__ import annotations

from nkilite import knobs
from nkilite.isa.constants import nc_version
from nkilite.machine.target import Target, get_target
from nkilite.trace import active


def current_target() -> Target:
    """The target of the kernel being traced; outside a kernel, the one the environment selects.

    Raises:
        UnknownTarget: NEURON_PLATFORM_TARGET_OVERRIDE names no NeuronCore.
    """
    builder = active.builder_or_none()
    return builder.target if builder is not None else get_target(knobs.target())


def get_nc_version() -> nc_version:
    """The generation kernels are specialized for (`nc_version.gen3` on trn2)."""
    return nc_version(current_target().generation)


def get_nc_sub_version() -> int:
    """The silicon revision within the generation; 0, the first, on every modelled chip."""
    return 0
