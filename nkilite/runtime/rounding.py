"""How a kernel rounds: what its decorator says, else the environment; and the random bits of its next launch."""

from __future__ import annotations

from typing import Any, NamedTuple

from nkilite import knobs
from nkilite.dtypes import uint32
from nkilite.errors import InvalidOperand, InvalidSetting, describe
from nkilite.machine.target import get_target
from nkilite.rounding import launch_state
from nkilite.runtime.arguments import ArrayArgument

OPTIONS = ("stochastic_rounding", "rounding_seed")


class Rounding(NamedTuple):
    """What is None is decided by the environment, at every launch.

    Attributes:
        stochastic: whether engines round stochastically.
        seed: of the random bits.
    """

    stochastic: bool | None = None
    seed: int | None = None


FROM_ENVIRONMENT = Rounding()


def take_rounding(options: dict[str, Any], function: str, default: Rounding = FROM_ENVIRONMENT) -> Rounding:
    """Take `stochastic_rounding` and `rounding_seed` out of the options of a decorator.

    Raises:
        InvalidOperand: the first is no bool, or the second no int.
    """
    stochastic, seed = (options.pop(name, value) for name, value in zip(OPTIONS, default, strict=True))
    if stochastic is not None and type(stochastic) is not bool:
        raise _invalid(function, OPTIONS[0], stochastic, "True, False or None")
    if seed is not None and type(seed) is not int:
        raise _invalid(function, OPTIONS[1], seed, "an int or None")
    return Rounding(stochastic, seed)


def _invalid(function: str, name: str, value: Any, expected: str) -> InvalidOperand:
    return InvalidOperand(instruction=function, operand=name, found=describe(value), expected=expected)


class Rounder:
    """Counts the launches of a kernel, which round with other bits each, as long as the seed is the same."""

    __slots__ = ("_launch", "_rounding", "_seed")

    def __init__(self, rounding: Rounding) -> None:
        self._rounding = rounding
        self._seed: int | None = None
        self._launch = 0

    def argument(self) -> ArrayArgument | None:
        """What the engines begin the next launch with; None if they round to nearest.

        Raises:
            InvalidSetting: the environment's seed is no int.
        """
        seed = self._effective()
        if seed is None:
            return None
        if seed != self._seed:
            self._seed, self._launch = seed, 0
        rows = get_target(knobs.target()).num_partitions
        state = launch_state(seed, self._launch, rows)
        return ArrayArgument("stochastic_rounding", state, state, uint32, "numpy")

    def launched(self) -> None:
        """The next launch is another one."""
        self._launch += 1

    def restart(self) -> None:
        """The next launch is the first."""
        self._launch = 0

    def _effective(self) -> int | None:
        """The seed, or None if rounding is to nearest."""
        stochastic, seed = self._rounding
        if not (knobs.stochastic_rounding() if stochastic is None else stochastic):
            return None
        if seed is not None:
            return seed
        given = knobs.rounding_seed()
        try:
            return int(given or 0)
        except ValueError:
            raise InvalidSetting(
                variable="NEURON_RT_STOCHASTIC_ROUNDING_SEED", found=given, expected="an integer"
            ) from None
