"""docs/compatibility.md says what the code does: its list of instructions is made from the registry.

`python tests/test_compatibility.py` rewrites the list.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import nkilite.isa as nisa
from nkilite.ir.definition import REGISTRY

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
_LIST = re.compile(r"(Supported, simulated and compiled:\n).*?(\n## )", re.S)


def with_list(text: str) -> str:
    """The page with its list of instructions made anew."""
    names = sorted(name for name in REGISTRY if hasattr(nisa, name))
    supported = textwrap.fill(", ".join(f"`{n}`" for n in names), 118) + ".\n"
    return _LIST.sub(lambda m: f"{m[1]}{supported}{m[2]}", text)


def test_instruction_list_is_current() -> None:
    text = PAGE.read_text()
    assert _LIST.search(text)
    assert with_list(text) == text, "run python tests/test_compatibility.py"


if __name__ == "__main__":
    PAGE.write_text(with_list(PAGE.read_text()))
