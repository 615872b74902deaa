"""docs/compatibility.md says what the code does: its lists of instructions are made from the registries.

`python tests/test_compatibility.py` rewrites the lists.
"""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import nkilite.isa as nisa
from nkilite.ir.definition import REGISTRY
from nkilite.isa.unsupported import FAMILIES

PAGE = Path(__file__).parents[1] / "docs" / "compatibility.md"
_LISTS = re.compile(
    r"(Supported, simulated and compiled:\n).*?(\nNot supported yet.*?\| --- \| --- \|\n).*?(\n## )", re.S
)


def with_lists(text: str) -> str:
    """The page with its lists of instructions made anew."""
    names = sorted(name for name in REGISTRY if hasattr(nisa, name))
    supported = textwrap.fill(", ".join(f"`{n}`" for n in names), 118) + ".\n"
    rows = "".join(f"| {family} | {', '.join(f'`{n}`' for n in names)} |\n" for family, names in FAMILIES.items())
    return _LISTS.sub(lambda m: f"{m[1]}{supported}{m[2]}{rows}{m[3]}", text)


def test_instruction_lists_are_current() -> None:
    text = PAGE.read_text()
    assert _LISTS.search(text)
    assert with_lists(text) == text, "run python tests/test_compatibility.py"


if __name__ == "__main__":
    PAGE.write_text(with_lists(PAGE.read_text()))
