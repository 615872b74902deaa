"""Cuts Python code blocks out of reStructuredText files and out of the docstrings of API stubs.

Nothing extracted here is stored in this repository: blocks are read from the user's checkout at run time.
"""

from __future__ import annotations

import ast
import functools
import itertools
import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_DIRECTIVE = re.compile(r"^(?P<indent>\s*)\.\. +code(?:-block)?:: *(?P<language>[\w+-]*) *$")
_OPTION = re.compile(r"^\s*:[\w-]+:")
_PYTHON = frozenset({"python", "python3", "py"})


@dataclass(frozen=True)
class CodeBlock:
    """One Python code block.

    Attributes:
        file: the file the block was read from.
        line: 1-based line of its first code line in that file.
        owner: for a docstring, the dotted name of its function or class; for a page, "".
        index: 0-based position among the Python blocks of the same owner (or page).
        text: the dedented source.
        context: the text around the block (the docstring or the page), for facts such as availability.
    """

    file: Path
    line: int
    owner: str
    index: int
    text: str
    context: str = ""


def python_blocks(lines: list[str]) -> Iterator[tuple[int, str]]:
    """Yields (0-based first line, dedented text) of every Python code block of reStructuredText lines."""
    row = 0
    while row < len(lines):
        match = _DIRECTIVE.match(lines[row])
        row += 1
        if match is None or match["language"] not in _PYTHON:
            continue
        margin = len(match["indent"])
        while row < len(lines) and _OPTION.match(lines[row]):
            row += 1
        first = row
        while row < len(lines) and _within(margin, lines[row]):
            row += 1
        body = lines[first:row]
        leading = 0
        while leading < len(body) and not body[leading].strip():
            leading += 1
        text = textwrap.dedent("\n".join(body[leading:])).strip("\n")
        if text.strip():
            yield first + leading, text + "\n"


def blocks_of_page(path: Path) -> list[CodeBlock]:
    """The Python code blocks of a reStructuredText page, in order."""
    page = path.read_text(encoding="utf-8")
    found = python_blocks([line.expandtabs() for line in page.splitlines()])
    return [CodeBlock(path, row + 1, "", index, text) for index, (row, text) in enumerate(found)]


def literal_blocks(text: str) -> Iterator[str]:
    """The dedented literal blocks of reStructuredText: what is indented after a paragraph that ends in two colons."""
    lines = text.expandtabs().splitlines()
    for row, line in enumerate(lines):
        if not line.rstrip().endswith("::") or line.lstrip().startswith(".. "):
            continue
        inside = functools.partial(_within, _indent(line))
        body = list(itertools.takewhile(inside, lines[row + 1 :]))
        if block := textwrap.dedent("\n".join(body)).strip("\n"):
            yield block + "\n"


def blocks_of_docstrings(path: Path) -> list[CodeBlock]:
    """The Python code blocks in the docstrings of a module's functions, classes and methods, in order."""
    blocks = []
    for owner, docstring, first_line in _docstrings(ast.parse(path.read_text(encoding="utf-8"))):
        for index, (row, text) in enumerate(python_blocks(docstring.splitlines())):
            blocks.append(CodeBlock(path, first_line + row, owner, index, text, docstring))
    return blocks


def _docstrings(tree: ast.Module) -> Iterator[tuple[str, str, int]]:
    """Yields (dotted name, raw docstring, 1-based line of the docstring's first line)."""

    def visit(node: ast.AST, prefix: str) -> Iterator[tuple[str, str, int]]:
        for child in ast.iter_child_nodes(node):
            if not isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            name = f"{prefix}{child.name}"
            docstring = ast.get_docstring(child, clean=False)
            if docstring is not None:
                yield name, docstring, child.body[0].lineno
            yield from visit(child, f"{name}.")

    yield from visit(tree, "")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _within(margin: int, line: str) -> bool:
    """Whether a line belongs to the block that a paragraph with this margin introduces."""
    return not line.strip() or _indent(line) > margin
