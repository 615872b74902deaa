"""Classification of code blocks and the kernels made of them, on snippets of our own."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from conformance.blocks import Kind, analyse, call_text, continued, kernel_text
from conformance.extract import CodeBlock


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("a = nl.full((2, 2), 1.0, dtype=nl.float32)\n", Kind.BODY),
        ("@nki.jit\ndef f(x):\n    return x\n", Kind.MODULE),
        ("@nki.jit\ndef f(x):\n    return x\n\nf(1)\n", Kind.SCRIPT),
        ("x = = 1\n", Kind.UNUSABLE),
        ("f(dst=a, src=...)\n", Kind.UNUSABLE),
        ("# pseudo-code\nx = 1\n", Kind.UNUSABLE),
    ],
)
def test_kind(text: str, kind: Kind) -> None:
    assert analyse(text).kind is kind


@pytest.mark.parametrize(
    ("text", "free"),
    [
        ("b = a + 1\n", ["a"]),
        ("a = 1\nb = a\n", []),
        ("for i in range(n):\n    t = nl.load(x[i])\n", ["n", "x"]),
        ("y = [i * k for i in range(3)]\n", ["k"]),
        ("def f(p):\n    q = p\n    return q + later\n\nlater = 1\n", []),
        ("def f(p):\n    return p + never\n", ["never"]),
        ("class C(NKIObject):\n    x = 1\n    y = x\n    z = C\n", ["C"]),
        ("total += 1\n", ["total"]),
        ("f = lambda v: v + w\n", ["w"]),
    ],
)
def test_free_names(text: str, free: list[str]) -> None:
    assert list(analyse(text).free) == free


def test_name_used_before_its_definition_is_premature() -> None:
    assert analyse("class C(NKIObject):\n    z = C()\n").premature == ("C",)


def test_definitions_alone_are_inert() -> None:
    assert analyse("import os\n\ndef f():\n    return 1\n").inert
    assert not analyse("def f():\n    return 1\n\nf()\n").inert


def test_equality_of_tiles_becomes_a_pair() -> None:
    text = "c = nl.add(a, b)\nassert nl.equal(\n    c, d\n)\nassert c.shape == (2, 2)\n"
    analysis = analyse(text)
    assert (analysis.compares, analysis.asserts) == (1, True)
    module = kernel_text([text], ("a", "b", "d"))
    ast.parse(module)
    assert "_compared.extend((_export(c), _export(d)))" in module
    assert "assert c.shape == (2, 2)" in module
    assert "def block(a, b, d):" in module


def test_outputs_and_results_are_returned_in_order() -> None:
    module = kernel_text(["nl.store(out, x)\n"], ("x",), {"out": ((4, 8), "float32")}, ("x",))
    assert "out = _hbm((4, 8), 'float32')" in module
    assert "_returned = (out, _export(x), *_compared,)" in module


def test_plain_function_is_called_from_a_kernel() -> None:
    module = call_text(["def f(a, b):\n    return a\n"], "f", ("a", "b"))
    ast.parse(module)
    assert "@nki.jit\ndef block(a, b):\n    returned = f(a, b)\n" in module


def _page(*texts: str) -> list[CodeBlock]:
    return [CodeBlock(Path("page.rst"), 1, "", index, text) for index, text in enumerate(texts)]


def test_block_continues_the_nearest_block_that_binds_its_names() -> None:
    blocks = _page("t = 1\n", "t = 2\n", "x = 5\n", "u = t\n")
    chain = continued(blocks, 3)
    assert chain is not None
    assert [block.index for block in chain] == [1, 3]


def test_block_whose_names_are_scattered_stays_incomplete() -> None:
    assert continued(_page("a = 1\n", "b = 2\n", "c = a + b\n"), 2) is None
