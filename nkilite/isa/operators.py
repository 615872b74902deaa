"""How public operator arguments name rows of the operator tables: nl functions, NumPy ufuncs, rows, names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

import numpy as np

from nkilite.errors import UnknownOperator

_LANGUAGE = "nkilite.language"
_NUMPY_REDUCTIONS: dict[object, str] = {np.max: "maximum", np.min: "minimum", np.sum: "add", np.prod: "multiply"}
_UFUNC_NAMES = {"absolute": "abs", "remainder": "mod", "bitwise_not": "invert"}


class Named(Protocol):
    """A row of a table."""

    @property
    def name(self) -> str: ...


#: What an instruction takes as an operator: nl.add, np.add, a row, "add".
Op: TypeAlias = Callable[..., object] | Named | str

Row = TypeVar("Row", bound=Named)


def name_of(op: object) -> str | None:
    """The operator an argument names: "add" for nl.add, np.add and "add"; None for anything else."""
    if isinstance(op, str):
        return op
    name = getattr(op, "__name__", None)
    if callable(op) and op in _NUMPY_REDUCTIONS:
        return _NUMPY_REDUCTIONS[op]
    if isinstance(op, np.ufunc):
        return _UFUNC_NAMES.get(op.__name__, str(op.__name__))
    module = getattr(op, "__module__", None) or ""
    if isinstance(name, str) and (module == _LANGUAGE or module.startswith(_LANGUAGE + ".")):
        return name
    return None


class Table(Generic[Row]):
    """Rows by name, resolving what users pass; results are remembered, because every traced call asks.

    Args:
        kind: what error messages call a row.
        rows: the table.
        aliases: further names of rows.
    """

    def __init__(self, kind: str, rows: tuple[Row, ...], aliases: dict[str, str] | None = None) -> None:
        self.kind = kind
        self.rows = {row.name: row for row in rows}
        self._names = {**self.rows, **{a: self.rows[name] for a, name in (aliases or {}).items()}}
        # What has been accepted, per `allowed` (which is kept alive, so that its id stays its own).
        self._accepted: dict[int, tuple[tuple[Row, ...], dict[object, Row]]] = {}

    def __getitem__(self, name: str) -> Row:
        return self.rows[name]

    def lookup(self, op: object, instruction: str, allowed: tuple[Row, ...]) -> Row:
        """The row `op` names.

        Raises:
            UnknownOperator: it names none of `allowed`.
        """
        try:
            return self._accepted[id(allowed)][1][op]
        except (KeyError, TypeError):  # not seen yet, or unhashable
            pass
        row = next((row for row in allowed if row is op or row is self._names.get(name_of(op) or "")), None)
        if row is None:
            raise UnknownOperator(
                instruction=instruction,
                found=name_of(op) or op,
                kind=self.kind,
                allowed=", ".join(row.name for row in allowed),
                example=allowed[0].name,
            )
        self._accepted.setdefault(id(allowed), (allowed, {}))[1][op] = row
        return row
