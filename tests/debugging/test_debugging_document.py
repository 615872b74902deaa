"""docs/debugging.md: its examples run, and print what it says."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "debugging.md"


def test_examples(tmp_path, capsys):
    text = PAGE.read_text()
    names: dict = {"__name__": "examples"}
    examples = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", text, re.S)
    assert len(examples) == text.count("```python\n") > 0
    for number, (block, printed) in enumerate(examples):
        script = tmp_path / f"example{number}.py"
        script.write_text(block)
        exec(compile(block, str(script), "exec"), names)
        assert capsys.readouterr().out.replace(str(script), "softmax.py") == printed
