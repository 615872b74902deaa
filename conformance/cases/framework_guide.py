"""The page on kernels inside PyTorch and JAX models: its code blocks run in order, one framework at a time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ..case import OWN_MODES, Case, Launch, Tolerance
from ..extract import literal_blocks
from ..sources import GeneratedSource

PAGE = "guides/framework_custom_op.rst"
KERNEL = "examples/tensor_addition/tensor_addition_nki_kernels.py"
_EXAMPLE = re.compile(r"NKI_EXAMPLE_27_BEGIN\n(?P<kernel>.*?)# NKI_EXAMPLE_27_END", re.DOTALL)
_HEADING = re.compile(r"^\^+\n(PyTorch|JAX)\n\^+$|^(.+)\n[-=]+$", re.MULTILINE)

# What the blocks leave behind, beside what it must be: the model a * b * (a + b) and its two gradients.
_RESULTS = """

def results():
    left, right, found = {left}, {right}, [{found}]
    slopes = [left * right + other * (left + right) for other in (right, left)]
    wanted = [left * right * (left + right)] * (len(found) - 2) + slopes
    return [value for pair in zip(found, wanted) for value in pair]
"""
_FRAMEWORKS = {
    "PyTorch": ("torch", _RESULTS.format(left="a.detach()", right="b.detach()", found="out.detach(), a.grad, b.grad")),
    "JAX": ("jax", _RESULTS.format(left="a", right="b", found="jax_customop_tutorial(a, b), c, grad_a, grad_b")),
}


def cases(suite: str, root: Path) -> Iterator[Case]:
    """One case for each framework, if the page and its kernel are in the checkout."""
    page, kernels = root / PAGE, root / KERNEL
    if not (page.is_file() and kernels.is_file()):
        return
    example = _EXAMPLE.search(kernels.read_text(encoding="utf-8"))
    assert example is not None, f"{kernels} has no example 27"
    for heading, (framework, results) in _FRAMEWORKS.items():
        text = "\n".join([example["kernel"], *_blocks(page, heading), results])
        launch = Launch("results", pairs=True, tolerance=Tolerance(1e-4, 1e-4), host=True)
        source = GeneratedSource(page, f"guide_{framework}", text)
        yield Case(suite, f"guide of {heading}", source, launch, OWN_MODES, framework=framework)


def _blocks(page: Path, framework: str) -> Iterator[str]:
    """The Python blocks under the headings of a framework."""
    text = page.read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    for heading, following in zip(headings, [*headings[1:], None], strict=True):
        if heading[1] == framework:
            part = text[heading.end() : following.start() if following else len(text)]
            yield from (block for block in literal_blocks(part) if _is_python(block))


def _is_python(text: str) -> bool:
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True
