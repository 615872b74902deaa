"""The page of errors is what nkilite/errors.py says, and every class in it is raised and tested."""

from __future__ import annotations

import ast
from pathlib import Path

from errors_document import PAGE, classes, families, members, render

import nkilite
from nkilite.errors import NkiError

_RAISED = {m.__name__ for family in families() for m in members(family)}


def test_the_page_is_current() -> None:
    assert PAGE.read_text() == render(), "run: PYTHONPATH=. python tests/errors/errors_document.py"


def test_every_class_is_on_the_page() -> None:
    page = PAGE.read_text()
    for kind in classes():
        assert f"`{kind.__name__}`" in page or f"## {kind.__name__}\n" in page


def test_every_class_is_raised() -> None:
    names: set[str] = set()
    for path in Path(nkilite.__file__).parent.rglob("*.py"):
        if path.name != "errors.py":
            names |= {n.id for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Name)}
    assert not _RAISED - {NkiError.__name__} - names


def test_messages_say_what_to_do() -> None:
    for family in families():
        for kind in members(family):
            assert kind.template.endswith((".", "}")), kind
            assert kind.remedy.endswith((".", "}")) or kind.template == NkiError.template, kind
