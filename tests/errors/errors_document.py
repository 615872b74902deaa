"""Writes docs/errors.md from nkilite/errors.py: `PYTHONPATH=. python tests/errors/errors_document.py`."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from nkilite import errors
from nkilite.errors import NkiError

PAGE = Path(__file__).parents[2] / "docs" / "errors.md"

_HEAD = """\
# Errors

<!-- Written by tests/errors/errors_document.py from nkilite/errors.py; do not edit. -->

Every error of nkilite is a subclass of `nkilite.errors.NkiError`, one class for each mistake. Its message says what is
wrong, the limit and the value found, the file and line of the kernel with its source, and how to mend it:

```
nisa.nc_matmul: stationary is float32 and moving bfloat16: float32 and tfloat32 only go together.
  at kernel.py:12
     nisa.nc_matmul(result, weights, x)
  fix: convert one operand with nisa.tensor_copy.
```

`error.location` has `file`, `line`, `function` and `source`; `error.fields` has the values in the message. Tracebacks
show the frames of user code alone. `nki.simulate` and compiled kernels raise the same errors; those that need the whole
kernel (memory overflow) come at the end of a simulated run.

Words in *italics* below stand for values that the message fills in.
"""


def render() -> str:
    """The page."""
    sections = [_HEAD]
    for family in families():
        sections.append(f"## {family.__name__}\n\n{inspect.cleandoc(family.__doc__ or '')}\n")
        rows = ["| class | also a | what is wrong | remedy |", "|---|---|---|---|"]
        rows += [_row(kind) for kind in members(family)]
        sections.append("\n".join(rows) + "\n")
    return "\n".join(sections)


def classes() -> list[type[NkiError]]:
    """Every error class, in the order of the file."""
    return [k for k in vars(errors).values() if isinstance(k, type) and issubclass(k, NkiError) and k is not NkiError]


def families() -> list[type[NkiError]]:
    """The classes that others derive from, and those that stand alone under NkiError."""
    return [k for k in classes() if _parent(k) is NkiError or k.__subclasses__()]


def members(family: type[NkiError]) -> list[type[NkiError]]:
    """The classes of a family that are raised: leaves below it, and itself where it has a message of its own."""
    own = [family] if family.template != NkiError.template or not family.__subclasses__() else []
    return own + [k for k in classes() if _parent(k) is family and not k.__subclasses__()]


def _parent(kind: type[NkiError]) -> type[NkiError]:
    return next(b for b in kind.__mro__[1:] if issubclass(b, NkiError))


def _row(kind: type[NkiError]) -> str:
    python = [b.__name__ for b in kind.__bases__ if not issubclass(b, NkiError)]
    cells = [f"`{kind.__name__}`", ", ".join(f"`{p}`" for p in python), _said(kind.template), _said(kind.remedy)]
    return f"| {' | '.join(cells)} |"


def _said(template: str) -> str:
    """A template with its placeholders in italics; a text that is all placeholder depends on the case."""
    if re.fullmatch(r"\{\w+\}", template):
        return "depends on the case" if template != NkiError.template else "*message*"
    words = re.sub(r"\{(\w+)[^}]*\}", lambda m: f"*{m[1].replace('_', ' ')}*", template.replace("}{", "} {"))
    return words.replace("|", r"\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(render())
