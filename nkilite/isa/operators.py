"""How public operator arguments name rows of the operator tables: nl functions, NumPy ufuncs, rows, names."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from nkilite.errors import UnknownOperator

_LANGUAGE = "nkilite.language"
_UFUNC_NAMES = {"absolute": "abs", "remainder": "mod", "bitwise_not": "invert"}


class Named(Protocol):
    """A row of a table."""

    @property
    def name(self) -> str: ...


Row = TypeVar("Row", bound=Named)


def name_of(op: Any) -> str | None:
    """The operator an argument names: "add" for nl.add, np.add and "add"; None for anything else."""
    if isinstance(op, str):
        return op
    name = getattr(op, "__name__", None)
    if isinstance(op, np.ufunc):
        return _UFUNC_NAMES.get(op.__name__, op.__name__)
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
        self._resolved: dict[Any, Row] = {row: row for row in rows}

    def __getitem__(self, name: str) -> Row:
        return self.rows[name]

    def lookup(self, op: Any, instruction: str, allowed: tuple[Row, ...]) -> Row:
        """The row `op` names.

        Raises:
            UnknownOperator: it names none of `allowed`.
        """
        try:
            row = self._resolved.get(op)
        except TypeError:  # unhashable
            row = None
        if row is None:
            row = self._names.get(name_of(op) or "")
            if row is not None:
                self._resolved[op] = row
        if row is None or row not in allowed:
            raise UnknownOperator(
                instruction=instruction,
                found=name_of(op) or op,
                kind=self.kind,
                allowed=", ".join(row.name for row in allowed),
                example=allowed[0].name,
            )
        return row
