"""`python -m benchmarks calibration FOLDER [FAMILY ...]`: the timing model against published measurements.

FOLDER holds checkouts of the repositories that rows.toml names, in folders of their names (of OWNER-NAME, where several
have one name and rows.toml gives the owner in the row). Prints every row as it is modelled. Without families it also
writes what profiles state of the model's error, and docs/calibration.md.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import nkilite as nki
from benchmarks.calibration.report import DOCUMENT, TABLE, document, families, published
from benchmarks.calibration.sources import SOURCES
from nkilite import compat
from nkilite.profiling.accuracy import Measurement, kind_of
from nkilite.profiling.queues import without_core


def measured(folder: Path, wanted: list[str]) -> Iterator[Measurement]:
    """The rows of the families wanted (of all, if none is named), modelled."""
    for family in families():
        if wanted and family["name"] not in wanted:
            continue
        for *which, published_us in family["rows"]:
            launches = SOURCES[family["build"]](folder, family["name"], *which)
            how = {"target": family["target"], "disable_dge": family.get("disable_dge", False)}
            found = [nki.profile(kernel, *args, **how, **named) for kernel, args, named in launches]
            captured = family["quantity"] == "profile"
            modelled_us = sum(p.captured_us if captured else p.latency_us for p in found)
            bound = without_core(found[0].bottleneck)
            kind = kind_of(found[0].program.managed, modelled_us, bound)
            row = " ".join(map(str, which))
            profiled = published().get((family["name"], row), {})
            yield Measurement(
                family["name"], row, family["target"], kind, family.get("held_out", False), published_us,
                round(modelled_us, 2), bound, profiled.get("engine", ""),
                [sum(p.hbm_read_bytes for p in found), sum(p.hbm_write_bytes for p in found)],
                profiled.get("hbm_bytes", []), found[0].cores,
            )


def main() -> int:
    """Compare, print, and write."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    compat.install()
    logging.disable()
    rows = []
    for m in measured(Path(sys.argv[1]), sys.argv[2:]):
        rows.append(m)
        use = "held out" if m.held_out else "used"
        print(
            f"{m.family:24} {m.row:28} {m.measured_us:10.1f} {m.modelled_us:10.1f} us {m.error:+7.1%}  {use} {m.kind}",
            flush=True,
        )
    for kind in sorted({m.kind for m in rows}):
        errors = [abs(m.error) for m in rows if m.kind == kind]
        print(f"{kind}: {len(errors)} rows, median error {median(errors):.1%}")
    named = [m for m in rows if m.measured_bound]
    print(f"busiest engine as measured: {sum(m.bound == m.measured_bound for m in named)} of {len(named)}")
    counted = [m for m in rows if m.measured_hbm_bytes]
    print(f"HBM bytes as measured: {sum(m.hbm_bytes == m.measured_hbm_bytes for m in counted)} of {len(counted)}")
    print(f"all: {len(rows)} rows, median error {median(abs(m.error) for m in rows):.1%}")
    if len(sys.argv) == 2:
        TABLE.write_text(json.dumps([m._asdict() for m in rows], indent=0) + "\n")
        DOCUMENT.write_text(document(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
