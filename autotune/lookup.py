"""Tuned configurations at launch: by exact arguments, else from the nearest shape that is legal, else the default.

`use` makes every `@nki.jit` kernel of the process take the parameters its caller leaves out from a database or an
export; so does the environment variable NKILITE_TUNED, without a line of code. A call that sets one tuned parameter
decides them all.
"""

from __future__ import annotations

import ast
import inspect
import os
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np

import nkilite as nki
from autotune.context import Context, cpu_level, cpu_model, describe_arguments
from autotune.database import Choice, Database, open_any
from autotune.errors import InvalidDatabase
from autotune.figures import CPU, is_chip
from autotune.objective import current_target
from autotune.space import Configuration

BEST_TRIED = 3  # of unfinished studies, best trials that are traced to see whether they are of the kernel as it is
NEAREST_TRIED = 3  # nearest shapes whose configuration is traced to see whether it is legal here


class Configurations:
    """Answers launches from a database; what it found is kept, so a repeated launch costs one dict lookup.

    Measured choices for this CPU come before modelled ones for the current target, and of several figures the first
    is what counts.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._found: dict[Any, Configuration] = {}
        self._contexts: dict[str, list[Context]] = defaultdict(list)
        self.refresh()

    def refresh(self) -> None:
        """See what was added to the database since."""
        self._database.refresh()
        self._found.clear()
        self._contexts.clear()
        for context in self._database.of_kernel():
            self._contexts[context.kernel.rpartition(":")[2]].append(context)

    def __call__(self, kernel: Any, explicit: Mapping[str, Any]) -> Configuration:
        """Tuned values for the parameters of `kernel` that a call with these arguments leaves out."""
        tuning: Any = getattr(kernel, "tuning", None)
        at_launch = None if tuning is None else tuning.at_launch
        if at_launch is None and kernel.launched_name not in self._contexts:
            return {}
        target = nki.target_identity(current_target())
        key = (kernel, target, tuple((n, _token(v)) for n, v in explicit.items() if _selects(n, tuning)))
        try:
            found = self._found.get(key)
        except TypeError:  # an unhashable argument
            return self._search(kernel, explicit, target)
        if found is None:
            self._found[key] = {}  # while the search traces the kernel
            found = self._search(kernel, explicit, target)
            if not found and at_launch is not None and not explicit.keys() & tuning.space.parameters.keys():
                found = at_launch(_with_defaults(kernel, explicit))
            self._found[key] = found
        return found

    def _search(self, kernel: Any, explicit: Mapping[str, Any], target: str) -> Configuration:
        here = [c for c in self._contexts[kernel.launched_name] if _applies(c, kernel, target)]
        here.sort(key=_preference)
        arguments = _with_defaults(kernel, explicit)
        described = describe_arguments(arguments)
        key = getattr(getattr(kernel, "tuning", None), "key", None)
        near: list[tuple[int, float, int, Context]] = []
        for context in here:
            names = [n for n in context.arguments if key is None or n in key]
            distance = _distance(context.arguments, described, names)
            if distance == 0:
                choice = self._choice(context, kernel, arguments, explicit)
                if choice is not None:
                    return choice.configuration
            elif distance is not None:
                near.append((_preference(context), distance, len(near), context))
        for *_, context in sorted(near, key=lambda n: n[:3])[:NEAREST_TRIED]:
            choice = self._choice(context, kernel, arguments, explicit)
            if choice is not None and _legal(kernel, {**arguments, **choice.configuration}):
                return choice.configuration
        return {}

    def _choice(
        self, context: Context, kernel: Any, arguments: Mapping[str, Any], explicit: Mapping[str, Any]
    ) -> Choice | None:
        """The best of a context that sets nothing the caller sets, and that the kernel as it is was tuned with."""
        for choice in self._database.ranked(context)[:BEST_TRIED]:
            if not choice.configuration.keys() & explicit.keys() and _valid(choice, kernel, arguments):
                return choice
        return None


def use(path: str | os.PathLike[str] | None) -> Configurations | None:
    """Let launches of this process take tuned configurations from a database or an export; None stops it.

    Raises:
        InvalidDatabase: the file is neither, or there is none.
    """
    configurations = None if path is None else configurations_of(path)
    nki.register_configurations(configurations)
    return configurations


def ensure() -> None:
    """Let kernels that tune themselves at launch be asked, unless launches are answered already."""
    nki.register_configurations(nki.register_configurations(None) or Configurations(Database(None)))


def configurations_of(path: str | os.PathLike[str]) -> Configurations:
    """The lookup nkilite loads where NKILITE_TUNED names a file (entry point `nkilite.configurations`).

    Raises:
        InvalidDatabase: the file is neither a database nor an export, or there is none.
    """
    if not os.path.exists(path):
        raise InvalidDatabase(path=path, problem="there is no such file")
    return Configurations(open_any(path))


def _with_defaults(kernel: Any, explicit: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name, in the order of the signature."""
    found = {}
    for name, parameter in kernel.signature.parameters.items():
        if name in explicit:
            found[name] = explicit[name]
        elif parameter.default is not parameter.empty:
            found[name] = parameter.default
    return found


def _selects(name: str, tuning: Any) -> bool:
    """Whether an argument has a say in which configuration a launch gets."""
    return tuning is None or tuning.key is None or name in tuning.key or name in tuning.space.parameters


def _token(value: Any) -> Any:
    shape = getattr(value, "shape", None)
    return value if shape is None else (tuple(shape), value.dtype)


def _applies(context: Context, kernel: Any, target: str) -> bool:
    if context.nkilite != nki.__version__ or context.target != target:
        return False
    return not context.cpu or context.cpu == f"{cpu_model()} {cpu_level()}"


def _preference(context: Context) -> int:
    """Chosen by time on this CPU before modelled latency before other figures; the first figure is what chose."""
    first = context.objective.partition(",")[0]
    return 0 if first == CPU.name else 1 if is_chip(first) else 2


def _distance(tuned: dict[str, list[Any]], called: dict[str, list[Any]], names: list[str]) -> float | None:
    """Between the sizes of arrays; None when the arguments differ in more than sizes."""
    total = 0.0
    for name in names:
        ours, theirs = tuned[name], called.get(name)
        if ours == theirs:
            continue
        if theirs is None or ours[0] != "array" or theirs[0] != "array" or ours[2] != theirs[2]:
            return None
        if len(ours[1]) != len(theirs[1]):
            return None
        total += size_distance(ours[1], theirs[1])
    return total


def size_distance(ours: list[int], theirs: list[int]) -> float:
    """The sum over dimensions of the larger size over the smaller, less one."""
    return sum(max(n, m) / min(n, m) - 1 for n, m in zip(ours, theirs, strict=True))


def _legal(kernel: Any, arguments: Mapping[str, Any]) -> bool:
    call = _call(kernel, arguments)
    try:
        kernel.check(*call.args, **call.kwargs)
    except Exception:  # whatever the reason, this configuration is not for these arguments
        return False
    return True


def _valid(choice: Choice, kernel: Any, arguments: Mapping[str, Any]) -> bool:
    """Whether the kernel still traces to the program that was tuned, in this configuration on those arguments."""
    found = dict(arguments)
    try:
        for name, described in choice.context.arguments.items():
            if [described] != list(describe_arguments({name: found.get(name)}).values()):
                found[name] = _rebuilt(described)
        call = _call(kernel, {**found, **choice.configuration})
        return nki.program_digest(kernel, *call.args, **call.kwargs) == choice.program
    except Exception:  # the kernel takes other arguments now, or refuses these
        return False


def _rebuilt(described: list[Any]) -> Any:
    """An argument as a context describes it; what an array holds does not matter.

    Raises:
        ValueError, SyntaxError: the text of a value does not tell it.
    """
    kind, *rest = described
    return np.empty(*rest) if kind == "array" else ast.literal_eval(*rest)


def _call(kernel: Any, arguments: Mapping[str, Any]) -> inspect.BoundArguments:
    call: inspect.BoundArguments = kernel.signature.bind_partial()
    call.arguments.update({n: arguments[n] for n in kernel.signature.parameters if n in arguments})
    return call
