"""Launch grids: how many physical cores `kernel[...]` and NEURON_LOGICAL_NC_CONFIG ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from nkilite import knobs
from nkilite.errors import InvalidGrid
from nkilite.ir.meeting import Core
from nkilite.machine.target import Target, get_target

if TYPE_CHECKING:
    from nkilite.runtime.kernel import Kernel


def as_grid(found: object, kernel: str) -> int:
    """The cores that the brackets of `kernel[...]` ask for: a number, in a tuple or not, or what has one as `size`.

    Raises:
        InvalidGrid: it is no number of cores that a chip can join.
    """
    cores = found[0] if isinstance(found, (tuple, list)) and len(found) == 1 else found
    if not isinstance(cores, (int, np.integer)):
        cores = getattr(cores, "size", cores)
    if isinstance(cores, bool) or not isinstance(cores, (int, np.integer)) or cores < 1:
        raise InvalidGrid(kernel=kernel, found=repr(found), target=get_target(knobs.target()).name, choices="1 or 2")
    return int(cores)


def cores_of(kernel: Kernel[...], target: Target) -> list[Core]:
    """The cores of a launch.

    Raises:
        InvalidGrid: more than the chip can join to one.
    """
    wanted = kernel.lnc if kernel.lnc is not None else _from_environment(kernel)
    if wanted > target.max_logical_core_size:
        choices = " or ".join(map(str, range(1, target.max_logical_core_size + 1)))
        raise InvalidGrid(kernel=kernel.__name__, found=wanted, target=target.name, choices=choices)
    axes = 0 if kernel.lnc is None and wanted == 1 else 1
    return [Core(index, wanted, axes) for index in range(wanted)]


def _from_environment(kernel: Kernel[...]) -> int:
    found = knobs.logical_cores() or "1"
    return as_grid(int(found) if found.isdecimal() else found, kernel.__name__)
