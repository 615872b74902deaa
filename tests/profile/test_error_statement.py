"""The error printed with every profile is the one of the calibration table."""

from __future__ import annotations

import re
from pathlib import Path

from nkilite.profiling.profile import ERROR

TABLE = (Path(__file__).parents[2] / "docs" / "calibration.md").read_text()


def test_the_stated_error_is_the_calibrated_one() -> None:
    rows, median = re.search(r"median error, all (\d+) rows: \*\*([\d.]+)%\*\*", TABLE).groups()  # type: ignore[union-attr]
    largest = re.search(r"largest error: ([\d.]+)%", TABLE)[1]  # type: ignore[index]
    assert f"modelled; error over {rows} published measurements: median {median}%, largest {largest}%" == ERROR


def test_every_published_pair_is_in_order() -> None:
    assert TABLE.count("| right |") >= 14
    assert "WRONG" not in TABLE
