"""docs/cfp8.md: its example runs and prints what it says, and its table is true."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nkilite.dtypes import FORMS, as_dtype

PAGE = Path(__file__).parents[2] / "docs" / "cfp8.md"


def test_example(tmp_path, capsys):
    (block,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S)
    script = tmp_path / "example.py"
    script.write_text(block)
    exec(compile(script.read_text(), str(script), "exec"), {"__name__": "example"})
    assert capsys.readouterr().out.strip() == block.rsplit("# ", 1)[1].strip()


def test_table():
    rows = re.findall(r"^\| `nl\.(float8_\w+)` \| (\d), (\d) \| (\d+) \| ([\d.]+) \| 2\^(-\d+) \| 2\^(-\d+)",
                      PAGE.read_text(), re.M)
    assert len(rows) == 4
    for name, exponent, mantissa, bias, largest, normal, smallest in rows:
        form = FORMS[as_dtype(name)]
        values = as_dtype(name).from_bits(np.arange(128, dtype=np.uint8))
        finite = np.sort(values[np.isfinite(values)])
        assert (form.exponent, form.mantissa, form.bias) == (int(exponent), int(mantissa), int(bias))
        assert finite[-1] == float(largest) and finite[1] == 2.0 ** int(smallest)
        assert as_dtype(name).from_bits(np.array([1 << form.mantissa], np.uint8))[0] == 2.0 ** int(normal)
