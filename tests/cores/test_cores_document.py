"""docs/cores.md: its examples run, and its race is one."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from nkilite import errors

PAGE = Path(__file__).parents[2] / "docs" / "cores.md"


def test_examples(tmp_path, monkeypatch):
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) == 6
    script = tmp_path / "examples.py"
    script.write_text("\n".join(blocks))
    names: dict = {"__name__": "examples"}
    exec(compile(script.read_text(), str(script), "exec"), names)
    with pytest.warns(errors.RaceWarning, match=r"bytes \[1024, 1040\)"):
        names["racy"][2](np.ones((128, 4), np.float32))
