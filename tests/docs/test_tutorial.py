"""The tutorial runs, block after block."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TUTORIAL = Path(__file__).parents[2] / "docs" / "tutorial.md"


def test_every_block(tmp_path: Path) -> None:
    script = tmp_path / "tutorial.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", TUTORIAL.read_text(), re.DOTALL)))
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "has 256 partitions" in done.stdout
    assert "times as fast" in done.stdout
