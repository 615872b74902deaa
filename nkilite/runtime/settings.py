"""What a kernel's decorator can decide: rounding and checks for NaN, else left to the environment; configurations."""

from __future__ import annotations

from typing import NamedTuple

from nkilite import knobs
from nkilite.dimensions import Shapes
from nkilite.dtypes import uint32
from nkilite.errors import InvalidOperand, describe
from nkilite.ir.numbers import NAN, SPECIAL
from nkilite.machine.target import get_target
from nkilite.rounding import launch_state
from nkilite.runtime.arguments import ArrayArgument
from nkilite.runtime.configs import NO_CONFIGS, Configs

OPTIONS = ("stochastic_rounding", "rounding_seed", "check_nan")


class Settings(NamedTuple):
    """What is None is decided by the environment, at every launch.

    Attributes:
        stochastic_rounding: whether engines round stochastically.
        rounding_seed: of the random bits.
        check_nan: what is done about NaN that instructions write: one of `knobs.NAN_CHECKS`.
        configs: those of NKI 0.7.
        dynamic_shapes: which dimensions of arguments are dynamic; the environment says nothing about it.
    """

    stochastic_rounding: bool | None = None
    rounding_seed: int | None = None
    check_nan: str | None = None
    configs: Configs = NO_CONFIGS
    dynamic_shapes: Shapes = ()


FROM_ENVIRONMENT = Settings()


def take_settings(options: dict[str, object], function: str, default: Settings = FROM_ENVIRONMENT) -> Settings:
    """Take the settings out of the options of a decorator.

    Raises:
        InvalidOperand: one has another type, or is no such value.
    """
    stochastic, seed, check = (options.pop(name, getattr(default, name)) for name in OPTIONS)
    if stochastic is not None and type(stochastic) is not bool:
        raise _invalid(function, OPTIONS[0], stochastic, "True, False or None")
    if seed is not None and type(seed) is not int:
        raise _invalid(function, OPTIONS[1], seed, "an int or None")
    if check is not None and not (isinstance(check, str) and check in knobs.NAN_CHECKS):
        raise _invalid(function, OPTIONS[2], check, f"one of {', '.join(knobs.NAN_CHECKS)}, or None")
    return default._replace(stochastic_rounding=stochastic, rounding_seed=seed, check_nan=check)


def _invalid(function: str, name: str, value: object, expected: str) -> InvalidOperand:
    return InvalidOperand(instruction=function, operand=name, found=describe(value), expected=expected)


class Watch(NamedTuple):
    """What results are looked through for.

    Attributes:
        what: nothing, NAN or SPECIAL of nkilite/ir/numbers.py.
        fatal: it is an error where it is found.
    """

    what: str
    fatal: bool


UNWATCHED = Watch("", False)


def watch_of(settings: Settings) -> Watch:
    """What the launches of a kernel are to look for now.

    Raises:
        InvalidSetting: the environment says something else.
    """
    check = knobs.check_nan() if settings.check_nan is None else settings.check_nan
    if check == "off":
        return UNWATCHED
    return Watch(SPECIAL if check.endswith("+inf") else NAN, check.startswith("error"))


class Rounder:
    """Counts the launches of a kernel, which round with other bits each, as long as the seed is the same."""

    __slots__ = ("_launch", "_seed", "_settings")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
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
        stochastic, seed = self._settings.stochastic_rounding, self._settings.rounding_seed
        if not (knobs.stochastic_rounding() if stochastic is None else stochastic):
            return None
        return knobs.rounding_seed() if seed is None else seed
