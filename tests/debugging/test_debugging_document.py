"""docs/debugging.md: its examples run, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "debugging.md"


def test_examples(tmp_path, capsys):
    text = PAGE.read_text()
    script = tmp_path / "examples.py"
    names: dict = {"__name__": "examples"}
    for block, printed in re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S):
        script.write_text(block)
        exec(compile(block, str(script), "exec"), names)
        assert capsys.readouterr().out == printed
