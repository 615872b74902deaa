"""Search spaces: what may be varied, when, and which combinations are allowed.

A parameter holds finitely many values in an order, so a configuration is also a tuple of positions; samplers,
neighbours and deterministic tie-breaking all work on positions. A parameter whose `when` does not hold is absent from
the configuration, and the kernel's own default applies.
"""

from __future__ import annotations

import ast
import bisect
import inspect
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from autotune.errors import InvalidParameterSpec, InvalidSpace, NoSpace, UnknownParameter
from autotune.expressions import Expression

Configuration = dict[str, Any]
Condition = Union[Callable[..., bool], Mapping[str, Any], str, "Rule"]


@dataclass(frozen=True)
class Rule:
    """A predicate over parameters, by name: a function of some of them, or an expression."""

    text: str
    names: frozenset[str]
    holds: Callable[[Mapping[str, Any]], bool]

    @classmethod
    def of(cls, condition: Condition) -> Rule:
        """From a function whose arguments are parameter names, an expression, or {name: value or values}.

        Raises:
            InvalidSpace: the expression is none (see `autotune.expressions`).
        """
        if isinstance(condition, Rule):
            return condition
        if isinstance(condition, str):
            expression = Expression(condition)
            return cls(condition, expression.names, expression)
        if isinstance(condition, Mapping):
            wanted = {k: v if isinstance(v, (list, tuple, set, range)) else (v,) for k, v in condition.items()}
            text = " and ".join(f"{k} in {list(v)}" for k, v in wanted.items())
            return cls(text, frozenset(wanted), lambda c: all(c.get(k) in v for k, v in wanted.items()))
        parameters = tuple(inspect.signature(condition).parameters)
        doc = inspect.getdoc(condition)
        name = doc.splitlines()[0].rstrip(".") if doc else getattr(condition, "__name__", "constraint")
        text = f"{name}({', '.join(parameters)})" if not doc else name
        return cls(text, frozenset(parameters), lambda c: bool(condition(**{p: c[p] for p in parameters})))

    def admits(self, configuration: Mapping[str, Any]) -> bool:
        """Whether it holds, or speaks of a parameter that is absent."""
        return not self.names <= configuration.keys() or self.holds(configuration)

    def admits_strictly(self, configuration: Mapping[str, Any]) -> bool:
        """Whether it holds; a condition on a parameter that is absent does not."""
        return self.names <= configuration.keys() and self.holds(configuration)


@dataclass(frozen=True)
class Parameter:
    """A keyword argument of the kernel and its values.

    Attributes:
        values: what it may be, in their natural order when `ordered`.
        ordered: neighbouring values behave alike (sizes), as opposed to names.
        when: the parameter only exists where this holds.
        default: the value to start from; None leaves it to the kernel's signature.
    """

    values: Sequence[Any]
    ordered: bool = True
    when: Rule | None = None
    default: Any = None

    def __post_init__(self) -> None:
        if not len(self.values):
            raise InvalidSpace(problem="a parameter has no values")
        for value in () if isinstance(self.values, range) else self.values:
            if not isinstance(value, (int, float, str, type(None))):
                raise InvalidSpace(problem=f"the value {value!r} is not a number, string, boolean or None")
        if not isinstance(self.values, range) and len({*map(repr, self.values)}) != len(self.values):
            raise InvalidSpace(problem=f"the values {list(self.values)} repeat")
        if self.default is not None and self.default not in self.values:
            raise InvalidSpace(problem=f"the default {self.default!r} is not one of the values {list(self.values)}")

    def nearest(self, value: float) -> int:
        """The position of the value nearest a number, of an ordered parameter."""
        above = min(bisect.bisect_left(self.values, value), len(self.values) - 1)
        return min((max(0, above - 1), above), key=lambda at: abs(self.values[at] - value))


def choice(values: Iterable[Any], default: Any = None, when: Condition | None = None) -> Parameter:
    """A parameter with the given values; numbers that ascend count as ordered, anything else as names."""
    values = tuple(values)
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in values)
    ordered = numbers and all(a < b for a, b in itertools.pairwise(values))
    return Parameter(values, ordered, None if when is None else Rule.of(when), default)


def integers(low: int, high: int, step: int = 1, default: Any = None, when: Condition | None = None) -> Parameter:
    """low, low + step, ... up to and including high."""
    if step < 1:
        raise InvalidSpace(problem=f"a step of {step}")
    return Parameter(range(low, high + 1, step), True, None if when is None else Rule.of(when), default)


def powers_of_two(low: int, high: int, default: Any = None, when: Condition | None = None) -> Parameter:
    """The powers of two from low to high, both included."""
    if low < 1:
        raise InvalidSpace(problem=f"powers of two from {low}, which is below 1")
    values = tuple(1 << n for n in range((low - 1).bit_length(), high.bit_length()))
    return Parameter(values, True, None if when is None else Rule.of(when), default)


@dataclass(frozen=True)
class Space:
    """Parameters by name, and the constraints between them.

    Args:
        parameters: values are Parameters, or anything iterable, which `choice` turns into one.
        constraints: conditions every configuration meets: functions of parameter names, expressions, mappings.

    Raises:
        InvalidSpace: no parameter, no values, or a condition on a name that is not a parameter before it.
    """

    parameters: Mapping[str, Any]
    constraints: Sequence[Any] = ()
    _rules: tuple[Rule, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.parameters:
            raise InvalidSpace(problem="no parameters")
        parsed: dict[str, Parameter] = {}
        for name, values in self.parameters.items():
            if not isinstance(values, (Parameter, Iterable)) or isinstance(values, str):
                raise InvalidSpace(problem=f"parameter {name!r} is {values!r}, not a collection of values")
            parsed[name] = values if isinstance(values, Parameter) else choice(values)
            when = parsed[name].when
            if when is not None and not when.names <= parsed.keys() - {name}:
                raise InvalidSpace(problem=f"{name!r} depends on {sorted(when.names)}, which must stand before it")
        rules = tuple(Rule.of(c) for c in self.constraints)
        for rule in rules:
            if not rule.names <= parsed.keys():
                raise InvalidSpace(problem=f"constraint {rule.text!r} names {sorted(rule.names - parsed.keys())}")
        object.__setattr__(self, "parameters", parsed)
        object.__setattr__(self, "_rules", rules)

    @property
    def size(self) -> int:
        """Combinations of all values, before conditions and constraints."""
        return math.prod(len(p.values) for p in self.parameters.values())

    def violated(self, configuration: Mapping[str, Any]) -> Rule | None:
        """The first constraint a configuration breaks."""
        return next((rule for rule in self._rules if not rule.admits(configuration)), None)

    def __iter__(self) -> Iterator[Configuration]:
        """All configurations, the first parameter varying slowest, including those that break constraints."""

        def extend(configuration: Configuration, names: Sequence[str]) -> Iterator[Configuration]:
            if not names:
                yield configuration
                return
            parameter = self.parameters[names[0]]
            if parameter.when is not None and not parameter.when.admits_strictly(configuration):
                yield from extend(configuration, names[1:])
                return
            for value in parameter.values:
                yield from extend({**configuration, names[0]: value}, names[1:])

        yield from extend({}, tuple(self.parameters))

    def suggest(self, position: Callable[[str, Parameter], int]) -> Configuration:
        """A configuration from a function that picks the position of each parameter's value."""
        configuration: Configuration = {}
        for name, parameter in self.parameters.items():
            if parameter.when is None or parameter.when.admits_strictly(configuration):
                configuration[name] = parameter.values[position(name, parameter)]
        return configuration

    def positions(self, configuration: Mapping[str, Any]) -> tuple[int, ...]:
        """Where its values stand in the space, -1 for absent ones and foreign ones: the order that breaks ties."""
        return tuple(
            p.values.index(configuration[n]) if n in configuration and configuration[n] in p.values else -1
            for n, p in self.parameters.items()
        )

    def neighbours(self, configuration: Mapping[str, Any]) -> Iterator[Configuration]:
        """Configurations that differ in one parameter: the values next to an ordered one, the one nearest half and
        twice of it, and the ends of its range; any other name.

        What a size costs jumps where it stops dividing another one, so the next better value may be far away.
        """
        for name, parameter in self.parameters.items():
            if name not in configuration or configuration[name] not in parameter.values:
                continue
            at, last = parameter.values.index(configuration[name]), len(parameter.values) - 1
            near = set(range(last + 1))
            if parameter.ordered:
                value = parameter.values[at]
                near = {at - 1, at + 1, 0, last, parameter.nearest(value / 2), parameter.nearest(value * 2)}
            for other in sorted(near - {at, -1, last + 1}):
                yield self.complete({**configuration, name: parameter.values[other]})

    def complete(self, values: Mapping[str, Any]) -> Configuration:
        """The configuration with these values, first values where one is missing and none where `when` fails."""
        return self.suggest(lambda n, p: p.values.index(values[n]) if n in values and values[n] in p.values else 0)

    def default(self, signature: inspect.Signature) -> Configuration:
        """The configuration to start from: each parameter's own default, else the one in the kernel's signature.

        A value from the signature need not be among the values to try; a parameter without any default has its first.
        """
        configuration: Configuration = {}
        for name, parameter in self.parameters.items():
            if parameter.when is not None and not parameter.when.admits_strictly(configuration):
                continue
            value = parameter.default
            if value is None:
                declared = signature.parameters[name].default
                value = parameter.values[0] if declared is inspect.Parameter.empty else declared
            configuration[name] = value
        return configuration

    def fitting(self, kernel: Any) -> Space:
        """This space, after a check that the kernel takes all of its parameters.

        Raises:
            UnknownParameter.
        """
        taken = kernel.signature.parameters
        for name in self.parameters:
            if name not in taken:
                raise UnknownParameter(name=name, kernel=kernel.__name__, choices=", ".join(taken))
        return self


def infer(kernel: Any) -> Space:
    """The space of a kernel that declares none: SPACE in its module, else its keyword meta-parameters.

    A meta-parameter is a keyword argument in capitals. An integer one of default d tries the powers of two from 1 to
    4 d and d itself, a boolean one both.

    Raises:
        NoSpace: neither exists.
    """
    declared = kernel.function.__globals__.get("SPACE")
    taken = kernel.signature.parameters
    if isinstance(declared, Space) and declared.parameters.keys() <= taken.keys():
        return declared
    if isinstance(declared, Mapping):
        beside = {name: values for name, values in declared.items() if name in taken}
        if beside:
            return Space(beside)
    inferred: dict[str, Parameter] = {}
    for name, parameter in taken.items():
        value = parameter.default
        if not name.isupper() or value is parameter.empty:
            continue
        if isinstance(value, bool):
            inferred[name] = choice((False, True))
        elif isinstance(value, int) and value > 0:
            inferred[name] = choice(sorted({value, *powers_of_two(1, 4 * value).values}))
    if not inferred:
        raise NoSpace(kernel=kernel.__name__, location=kernel.location)
    return Space(inferred)


def parse_parameter(spec: str) -> tuple[str, Parameter]:
    """``NAME=1,2,4``, ``NAME=1..16``, ``NAME=2..64:2`` or ``NAME=pow2:1..64`` from the command line.

    Raises:
        InvalidParameterSpec.
    """
    name, mark, text = spec.partition("=")
    if not mark or not name.isidentifier() or not text:
        raise InvalidParameterSpec(spec=spec, problem="it is not NAME=VALUES")
    try:
        if ".." in text:
            bounds, _, step = text.removeprefix("pow2:").partition(":")
            low, _, high = bounds.partition("..")
            if text.startswith("pow2:"):
                return name, powers_of_two(int(low), int(high))
            return name, integers(int(low), int(high), int(step or 1))
        return name, choice(_literal(item) for item in text.split(","))
    except ValueError as error:  # InvalidSpace is one
        problem = error.fields["problem"] if isinstance(error, InvalidSpace) else str(error)
        raise InvalidParameterSpec(spec=spec, problem=problem) from None


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
