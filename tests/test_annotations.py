"""Types that say nothing are rare: checkers and editors see through the code."""

import tokenize
from pathlib import Path

import nkilite

ROOT = Path(nkilite.__file__).parent
AT_MOST = 5  # per 1000 lines, imports counted


def test_few_annotations_are_any() -> None:
    lines, found = 0, []
    for path in sorted(ROOT.rglob("*.py")):
        with path.open("rb") as file:
            tokens = list(tokenize.tokenize(file.readline))
        lines += tokens[-1].start[0] - 1
        met = [t.start[0] for t in tokens if t.type == tokenize.NAME and t.string == "Any"]
        found += [f"{path.relative_to(ROOT)}:{line}" for line in met]
    assert lines > 10_000
    assert 1000 * len(found) / lines < AT_MOST, f"{len(found)} in {lines} lines:\n" + "\n".join(found)
