"""Writes docs/targets.md: how to write a target file, and every field with what trn1.toml says of it.

Run as ``PYTHONPATH=. python tests/machine/targets_document.py``.
"""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from nkilite.machine.target import TARGETS, Target

ROOT = Path(__file__).parents[2]
SHOWN = ("trn1", "trn2", "trn3")
HEADER = """# Targets

<!-- Written by tests/machine/targets_document.py from nkilite/machine/targets/trn1.toml; do not edit. -->

A target is the chip a kernel is checked against and timed on: limits, dtypes, clocks, bandwidths. `nkilite targets`
lists those that come along, `nkilite targets trn2` shows every field of one.

| target | device | |
| --- | --- | --- |
| `trn1` (`gen2`) | Trainium | |
| `inf2` | Inferentia2 | the same core as trn1; not calibrated |
| `trn2` (`gen3`) | Trainium2 | the default |
| `trn3` (`gen4`) | Trainium3 | |
| `trn4` | Trainium4 | a what-if of the figures announced in December 2025: not calibrated, kernels see a trn3 |

A target of your own is a TOML file. It inherits from one of these, or from another file, and gives what differs:

```toml
# mychip.toml
inherits = "trn2"
tensor_ghz = 3.0
sbuf_partition_bytes = 262_144
```

The path of the file, which ends with `.toml`, stands wherever a target is named:

```sh
python -m nkilite profile kernels/softmax.py:softmax --shapes 2048x2048:bfloat16 --target trn2,mychip.toml
python -m nkilite compile kernels/softmax.py:softmax 128x512:float32 --target mychip.toml
NEURON_PLATFORM_TARGET_OVERRIDE=mychip.toml python script.py
autotune run kernels/matmul.py:matmul --shapes "2048x2048:bfloat16 2048x2048:bfloat16" --objective mychip.toml
```

- The name of a target is that of its file, unless it says `name = ...`; it may not be one of nkilite's.
- `aliases` and `calibrated` are not inherited: times on a target of your own are marked as not calibrated.
- A field that does not exist, of the wrong type or with an impossible value raises `InvalidTarget`, with file and key.
- A file is read again when it has changed. What is cached for a target is cached for the values of its fields.

## Fields

Sources are public Neuron documentation; nkilite/machine/target.py spells out the short names.

| field | trn1 | trn2 | trn3 | what it is |
| --- | --- | --- | --- | --- |
| `name` | `"trn1"` | `"trn2"` | `"trn3"` | What it is called; by default the name of the file. |
"""


def document() -> str:
    """The page."""
    described = descriptions()
    rows = []
    for field in fields(Target)[1:]:
        values = [_shown(getattr(TARGETS[name], field.name)) for name in SHOWN]
        same = [value if i == 0 or value != values[i - 1] else "″" for i, value in enumerate(values)]
        rows.append(f"| `{field.name}` | {' | '.join(same)} | {described[field.name]} |\n")
    return HEADER + "".join(rows)


def descriptions() -> dict[str, str]:
    """The comment above each field of trn1.toml."""
    text = (ROOT / "nkilite" / "machine" / "targets" / "trn1.toml").read_text()
    found = re.findall(r"((?:^# .*\n)+)^(\w+) = ", text, re.MULTILINE)
    return {key: " ".join(line[2:] for line in comment.splitlines()) for comment, key in found}


def _shown(value: Any) -> str:
    if isinstance(value, (frozenset, tuple)):
        return ", ".join(f"`{v}`" for v in sorted(value)) or "none"
    return f"{value:,}" if type(value) is int else str(value).lower() if isinstance(value, bool) else str(value)


if __name__ == "__main__":
    (ROOT / "docs" / "targets.md").write_text(document())
