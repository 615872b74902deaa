"""docs/beta1.md: every idiom gives the same in both dialects."""

from __future__ import annotations

import linecache
import re
from pathlib import Path

import numpy as np
import pytest

import nkilite
from nkilite import beta1

PAGE = Path(__file__).parents[2] / "docs" / "beta1.md"
SECTIONS = {
    title: re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for title, text in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    if "```python" in text
}


def kernel_of(title: str, code: str, dialect: object) -> object:
    name = f"<{title}>"
    linecache.cache[name] = len(code), None, code.splitlines(True), name
    names = {"nki": dialect, "nl": dialect.language, "nisa": dialect.isa, "np": np}
    exec(compile(code, name, "exec"), names)
    return names["kernel"]


@pytest.mark.parametrize("title", SECTIONS)
def test_both_dialects_agree(title):
    old, new = SECTIONS[title]
    assert old.startswith("# Beta 1\n")
    assert new.startswith("# NKI\n")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((8, 12)).astype(np.float32) for _ in range(2 if "(x, y)" in old else 1)]
    results = [kernel_of(title, code, dialect)(*arrays) for code, dialect in ((old, beta1), (new, nkilite))]
    np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)
    assert np.isfinite(results[0]).all()
