"""What made the difference between two versions of a kernel, line by line."""

from __future__ import annotations

from difflib import SequenceMatcher
from typing import NamedTuple

from rich.table import Table

from nkilite.profiling.result import LineCost, Profile
from nkilite.profiling.text import time_text

__all__ = ["LineChange", "changes", "difference_table"]


class LineChange(NamedTuple):
    """A source line in two versions; None in the one that has no such line."""

    before: LineCost | None
    after: LineCost | None

    @property
    def critical_us(self) -> float:
        """What it adds to the critical path, after less before."""
        return (self.after.critical_us if self.after else 0.0) - (self.before.critical_us if self.before else 0.0)

    @property
    def total_us(self) -> float:
        """Its engine time, after less before."""
        return (self.after.total_us if self.after else 0.0) - (self.before.total_us if self.before else 0.0)


def changes(before: Profile, after: Profile) -> list[LineChange]:
    """Lines of both kernels, matched by their text in order, what moved the critical path most first.

    The changes of the critical path add up to the difference of the spans.
    """
    old, new = (sorted(p.lines, key=lambda c: (c.location.file, c.location.line)) for p in (before, after))
    texts = [[c.location.source.strip() for c in lines] for lines in (old, new)]
    found = []
    for kind, a, b, c, d in SequenceMatcher(None, texts[0], texts[1], autojunk=False).get_opcodes():
        if kind == "equal":
            found += [LineChange(*pair) for pair in zip(old[a:b], new[c:d], strict=True)]
        else:
            found += [LineChange(cost, None) for cost in old[a:b]] + [LineChange(None, cost) for cost in new[c:d]]
    return sorted(found, key=lambda change: (-abs(change.critical_us), -abs(change.total_us)))


def difference_table(before: Profile, after: Profile, count: int = 10) -> Table:
    """The lines that changed most."""
    gain = after.latency_us / before.latency_us - 1
    table = Table(
        title=f"{before.name} to {after.name} on {after.target.name}: {gain:+.1%}, by source line (modelled)",
        title_justify="left",
    )
    for heading in ("code", "line", "engine time", "on the critical path", "difference"):
        table.add_column(heading, justify="left" if heading == "code" else "right", no_wrap=heading != "code")
    for change in changes(before, after)[:count]:
        both = [change.before, change.after]
        code = next(c.location.source.strip() for c in both if c)
        pairs = [f"{one} → {other}" for one, other in zip(*map(_cells, both), strict=True)]
        sign = "+" if change.critical_us >= 0 else "−"
        table.add_row(code, *pairs, sign + time_text(abs(change.critical_us)))
    return table


def _cells(cost: LineCost | None) -> list[str]:
    return [str(cost.location.line), time_text(cost.total_us), time_text(cost.critical_us)] if cost else ["–"] * 3
