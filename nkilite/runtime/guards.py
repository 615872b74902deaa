"""Values that were found in places, and whether they still are: identity comparisons, compiled to one function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import is_
from types import FunctionType

_LONG = 400  # comparisons: beyond, compiling them takes longer than it saves


class Guards:
    """What was found where.

    Values are held, so that no other object takes their identity. What a value refers to is not looked at: each place
    that can change needs a guard of its own.
    """

    def __init__(self) -> None:
        self._items: dict[tuple[int, str], tuple[Mapping[str, object], str, object]] = {}
        self._absent: dict[tuple[int, str], tuple[Mapping[str, object], str]] = {}
        self._attributes: list[tuple[object, str, object]] = []
        self._empty: list[object] = []
        self._checks: list[Callable[[], bool]] = []
        self._quick: Callable[[], bool] | None = None

    def item(self, mapping: Mapping[str, object], name: str, value: object) -> None:
        """A dict has a value under a name."""
        self._items[id(mapping), name] = mapping, name, value

    def absent(self, mapping: Mapping[str, object], name: str) -> None:
        """A dict has nothing under a name."""
        self._absent[id(mapping), name] = mapping, name

    def attributes(self, value: object, *names: str) -> None:
        """An object has the attributes it has now.

        Raises:
            AttributeError, ValueError: it has none, or an empty closure variable has no value.
        """
        self._attributes += [(value, name, getattr(value, name)) for name in names]

    def empty(self, container: object) -> None:
        """A container that exists for as long as these guards is empty."""
        self._empty.append(container)

    def mapping(self, keys: Callable[[], Iterable[object]], values: Callable[[], Iterable[object]]) -> None:
        """A dict has the keys and values it has now, in that order."""
        all_keys, all_values = list(keys()), list(values())

        def same() -> bool:
            now = list(values())
            return len(now) == len(all_values) and all(map(is_, now, all_values)) and all(map(is_, keys(), all_keys))

        self._checks.append(same)

    def sequence(self, items: Callable[[], Sequence[object]]) -> None:
        """What `items` makes a list of is what it is now."""
        values = items()

        def same() -> bool:
            now = items()
            return len(now) == len(values) and all(map(is_, now, values))

        self._checks.append(same)

    def equal(self, read: Callable[[], object]) -> None:
        """What `read` returns, plain data of fixed types, equals what it returns now."""
        value = read()
        self._checks.append(lambda: read() == value)

    def hold(self) -> bool:
        """Whether all is as it was."""
        try:
            return (
                all(mapping[name] is value for mapping, name, value in self._items.values())
                and all(name not in mapping for mapping, name in self._absent.values())
                and all(getattr(value, name) is found for value, name, found in self._attributes)
                and not any(self._empty)
                and all(check() for check in self._checks)
            )
        except Exception:  # a name is gone, a dict changes meanwhile, ...: it is not as it was
            return False

    def quick(self) -> Callable[[], bool]:
        """A function that does what `hold` does at a fraction of its cost, to be called at every launch."""
        if self._quick is None:
            self._quick = self._compiled() if len(self._items) + len(self._attributes) <= _LONG else self.hold
        return self._quick

    def _compiled(self) -> Callable[[], bool]:
        values: list[object] = []
        numbers: dict[int, str] = {}

        def variable(value: object) -> str:
            name = numbers.get(id(value))
            if name is None:
                name = numbers[id(value)] = f"v{len(values)}"
                values.append(value)
            return name

        terms = [f"{variable(mapping)}[{name!r}] is {variable(v)}" for mapping, name, v in self._items.values()]
        terms += [f"{name!r} not in {variable(mapping)}" for mapping, name in self._absent.values()]
        for owner, name, found in self._attributes:
            read = f"{variable(owner)}.{name}" if name.isidentifier() else f"getattr({variable(owner)}, {name!r})"
            terms.append(f"{read} is {variable(found)}")
        terms += [f"not {variable(container)}" for container in self._empty]
        terms += [f"{variable(check)}()" for check in self._checks]
        parameters = ", ".join(numbers.values())
        source = (
            f"def hold({parameters}):\n try:\n  return {' and '.join(terms) or 'True'}\n"
            " except Exception:\n  return False\n"
        )
        namespace: dict[str, FunctionType] = {}
        exec(compile(source, "<nkilite guards>", "exec"), namespace)
        hold = namespace["hold"]
        hold.__defaults__ = tuple(values)
        return hold
