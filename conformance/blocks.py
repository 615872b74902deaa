"""Turns documentation code blocks into modules: finds out what a block is and wraps fragments in a kernel.

A block that defines ``@nki.jit`` kernels becomes a module as it stands. Any other block is taken as the body
of a kernel. A tile is always true, so ``assert nl.equal(a, b)`` says nothing by itself: both operands are
stored to HBM at that point instead, and compared on the host.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from .extract import CodeBlock

# What the documentation takes as imported; the second table only where a name of it is used.
_ALWAYS = {"nki": "import nki", "nisa": "import nki.isa as nisa", "nl": "import nki.language as nl"}
_ON_USE = {
    "math": "import math",
    "np": "import numpy as np",
    "dataclass": "from dataclasses import dataclass",
    "Enum": "from enum import Enum",
    "NKIObject": "from nki.language import NKIObject",
}

# Helpers at module level, because a fragment that imports ``nl`` makes it a local name of the kernel.
_HELPERS = '''
def _hbm(shape, dtype):
    """A tensor in HBM for the fragment to write."""
    return nl.ndarray(shape, dtype=getattr(nl, dtype), buffer=nl.shared_hbm)


def _export(tile):
    """Stores a tile to HBM, so that the host sees its values."""
    if tile.buffer in (nl.hbm, nl.shared_hbm):
        return tile
    if tile.buffer == nl.psum:
        staged = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.sbuf)
        nisa.tensor_copy(dst=staged, src=tile)
        tile = staged
    out = nl.ndarray(tile.shape, dtype=tile.dtype, buffer=nl.shared_hbm)
    nisa.dma_copy(dst=out, src=tile)
    return out
'''

_KNOWN = frozenset({"math", "os", "dataclass", "Enum", "nki", "nisa", "nl", "np", "NKIObject"}) | set(dir(builtins))
_DEFINITIONS = (ast.FunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_EQUALITY = frozenset({"equal"})


class Kind(Enum):
    """What a code block is."""

    MODULE = "defines kernels"
    SCRIPT = "defines kernels and launches them"
    BODY = "the body of a kernel"
    UNUSABLE = "not runnable on its own"


@dataclass(frozen=True)
class Analysis:
    """What a block is, and what it would need.

    Attributes:
        kind: see ``Kind``.
        reason: why the block is unusable.
        free: names it uses but neither defines nor imports.
        premature: the free names it binds itself, later.
        binds: names bound at its top level.
        kernels: its ``@nki.jit`` functions.
        functions: all its top-level functions.
        returns: whether any of its functions returns something.
        inert: whether it only defines functions and classes, and imports.
        asserts: whether it asserts facts that Python can decide (shapes, strides, ...).
        compares: how many pairs of tiles it asserts to be equal.
    """

    kind: Kind
    reason: str = ""
    free: tuple[str, ...] = ()
    premature: tuple[str, ...] = ()
    binds: frozenset[str] = frozenset()
    kernels: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    returns: bool = False
    inert: bool = False
    asserts: bool = False
    compares: int = 0


def analyse(text: str) -> Analysis:
    """Classifies one code block."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        return Analysis(Kind.UNUSABLE, f"pseudo-code: {error.msg}")
    if "pseudo-code" in text:
        return Analysis(Kind.UNUSABLE, "pseudo-code, by its own words")
    functions = tuple(node.name for node in tree.body if isinstance(node, ast.FunctionDef))
    kernels = tuple(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and _is_jitted(node))
    names = _Names()
    names.run(tree)
    tests = [node.test for node in ast.walk(tree) if isinstance(node, ast.Assert)]
    compared = sum(_compared(test) is not None for test in tests)
    elided = any(_elided(node) for node in ast.walk(tree))
    return Analysis(
        kind=Kind.UNUSABLE if elided else _kind(tree, kernels),
        reason="elides arguments with '...'" if elided else "",
        free=tuple(names.free),
        premature=tuple(name for name in names.free if name in names.bound),
        binds=frozenset(names.top_level),
        kernels=kernels,
        functions=functions,
        returns=any(isinstance(node, ast.Return) for node in ast.walk(tree)),
        inert=not kernels and _inert(tree),
        asserts=len(tests) > compared,
        compares=compared,
    )


def _kind(tree: ast.Module, kernels: Sequence[str]) -> Kind:
    if not kernels:
        return Kind.BODY
    statements = [node for node in tree.body if not isinstance(node, _DEFINITIONS)]
    launches = any(
        isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kernels
        for statement in statements
        for node in ast.walk(statement)
    )
    return Kind.SCRIPT if launches else Kind.MODULE


def _inert(tree: ast.Module) -> bool:
    """Whether a block defines things and does nothing with them."""
    defines = any(isinstance(node, _DEFINITIONS) for node in tree.body)
    return defines and all(isinstance(node, _DEFINITIONS + _IMPORTS) for node in tree.body)


def module_text(blocks: Sequence[str]) -> str:
    """A module from one or more blocks that define kernels."""
    return _imports(blocks) + "\n".join(blocks)


def _imports(blocks: Sequence[str]) -> str:
    """The import lines that the documentation leaves out."""
    text = "\n".join(blocks)
    used = [line for name, line in _ON_USE.items() if re.search(rf"\b{name}\b", text)]
    return "\n".join([*_ALWAYS.values(), *used]) + "\n\n\n"


def kernel_text(
    blocks: Sequence[str],
    parameters: Sequence[str] = (),
    outputs: Mapping[str, tuple[tuple[int, ...], str]] | None = None,
    results: Sequence[str] = (),
) -> str:
    """A module whose kernel ``block`` has the given code blocks as its body.

    Args:
        blocks: code blocks that continue one another.
        parameters: free names of the blocks that become the kernel's parameters.
        outputs: free names that become HBM tensors, as (shape, dtype of nki.language); returned first.
        results: names of tiles of the block to store and return next; compared pairs follow.
    """
    made = [f"{name} = _hbm({shape!r}, {dtype!r})" for name, (shape, dtype) in (outputs or {}).items()]
    returned = [*(outputs or {}), *(f"_export({name})" for name in results), "*_compared"]
    body = ["_compared = []", *made, *(_with_exports(text) for text in blocks)]
    body.append(f"_returned = ({', '.join(returned)},)")
    body.append("return _returned if _returned else None")
    signature = f"@nki.jit\ndef block({', '.join(parameters)}):\n"
    return _imports(blocks) + _HELPERS + "\n\n" + signature + textwrap.indent("\n".join(body), "    ") + "\n"


def call_text(blocks: Sequence[str], function: str, parameters: Sequence[str]) -> str:
    """A module whose kernel ``block`` returns the tensors of a plain function of the given code blocks."""
    call = f"{function}({', '.join(parameters)})"
    return (
        _imports(blocks)
        + "\n".join(blocks)
        + _HELPERS
        + f"\n\n@nki.jit\ndef block({', '.join(parameters)}):\n"
        + f"    returned = {call}\n"
        + "    tiles = returned if isinstance(returned, tuple) else (returned,)\n"
        + "    return tuple(_export(tile) for tile in tiles)\n"
    )


def continued(blocks: Sequence[CodeBlock], index: int) -> list[CodeBlock] | None:
    """The blocks of a page up to block ``index`` that it needs, and itself; None when names stay unknown.

    A page often continues an earlier block. A block that misses names is completed with the nearest earlier
    block that binds any of them, provided it binds them all and stands alone.
    """
    here = analyse(blocks[index].text)
    if not here.free:
        return [blocks[index]]
    if here.premature:
        return None
    for earlier in reversed(range(index)):
        there = analyse(blocks[earlier].text)
        if there.binds.isdisjoint(here.free):
            continue
        if there.kind is Kind.BODY and not there.free and there.binds.issuperset(here.free):
            return [blocks[earlier], blocks[index]]
        return None
    return None


def _with_exports(text: str) -> str:
    """Replaces assertions that two tiles are equal by code that keeps both values; line numbers stay."""
    lines = text.rstrip("\n").split("\n")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Assert) or (pair := _compared(node.test)) is None:
            continue
        values = ", ".join(f"_export({ast.unparse(operand)})" for operand in pair)
        assert node.end_lineno is not None
        lines[node.lineno - 1] = " " * node.col_offset + f"_compared.extend(({values}))"
        for row in range(node.lineno, node.end_lineno):
            lines[row] = ""
    return "\n".join(lines)


def _compared(test: ast.expr) -> tuple[ast.expr, ast.expr] | None:
    """The operands of ``nl.equal(a, b)``."""
    if not isinstance(test, ast.Call) or not isinstance(test.func, ast.Attribute) or len(test.args) != 2:
        return None
    owner = test.func.value
    if test.func.attr in _EQUALITY and isinstance(owner, ast.Name) and owner.id == "nl":
        return test.args[0], test.args[1]
    return None


def _is_jitted(node: ast.FunctionDef) -> bool:
    return any("jit" in ast.unparse(decorator) for decorator in node.decorator_list)


def _elided(node: ast.AST) -> bool:
    """Whether a call's argument is a bare ``...``."""
    if not isinstance(node, ast.Call):
        return False
    values = [*node.args, *(keyword.value for keyword in node.keywords)]
    return any(isinstance(value, ast.Constant) and value.value is Ellipsis for value in values)


class _Names(ast.NodeVisitor):
    """Finds the names a block uses before (or without) binding them, in execution order.

    Function bodies run later, so they see every name of the block; class bodies run in place.
    """

    def __init__(self) -> None:
        self.bound: set[str] = set()
        self.top_level: set[str] = set()
        self.free: dict[str, None] = {}
        self._deferred: list[tuple[ast.FunctionDef | ast.Lambda, set[str]]] = []
        self._local: list[set[str]] = []

    def run(self, tree: ast.Module) -> None:
        for statement in tree.body:
            self.visit(statement)
        self.top_level = set(self.bound)
        while self._deferred:
            function, enclosing = self._deferred.pop(0)
            self._local = [enclosing | _assigned(function)]
            body = function.body if isinstance(function.body, list) else [function.body]
            for node in body:
                self.visit(node)
        self._local = []

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load):
            if node.id not in _KNOWN and node.id not in self.bound and not any(node.id in s for s in self._local):
                self.free.setdefault(node.id)
        else:
            self._bind(node.id)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self._bind((alias.asname or alias.name).split(".")[0])

    visit_ImportFrom = visit_Import

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        for target in node.targets:
            self.visit(target)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self.visit(node.value)
        if isinstance(node.target, ast.Name):
            self.visit_Name(ast.Name(node.target.id, ast.Load()))
        self.visit(node.target)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self.visit(node.target)
        for statement in [*node.body, *node.orelse]:
            self.visit(statement)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        arguments = node.args
        annotated = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        immediate = [
            *node.decorator_list,
            *arguments.defaults,
            *(a.annotation for a in annotated),
            node.returns,
        ]
        for expression in immediate:
            if expression is not None:
                self.visit(expression)
        self._bind(node.name)
        self._deferred.append((node, set().union(*self._local)))

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._deferred.append((node, set().union(*self._local)))

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for expression in [*node.decorator_list, *node.bases]:
            self.visit(expression)
        self._local.append(set())
        for statement in node.body:
            self.visit(statement)
        self._local.pop()
        self._bind(node.name)

    def _comprehension(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp) -> None:
        self._local.append(set())
        for generator in node.generators:
            self.visit(generator.iter)
            self.visit(generator.target)
            for condition in generator.ifs:
                self.visit(condition)
        for part in [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]:
            self.visit(part)
        self._local.pop()

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _comprehension

    def _bind(self, name: str) -> None:
        if self._local:
            self._local[-1].add(name)
        else:
            self.bound.add(name)


def _assigned(function: ast.FunctionDef | ast.Lambda) -> set[str]:
    """The names local to a function: its parameters and everything it assigns."""
    arguments = function.args
    named = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    names = {argument.arg for argument in named if argument is not None}
    for node in ast.walk(function):
        if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load):
            names.add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef) and node is not function:
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    return names
