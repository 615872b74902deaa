"""The speed table as a picture: a bar per peer on a logarithmic scale around parity, with its spread and the goal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import peers

_OURS, _THEIRS = "#2a7f62", "#b5543c"


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw the ratios of measured rows."""
    if peers.library("matplotlib") is None:
        raise SystemExit("--plot needs matplotlib: pip install 'nkilite[bench]'")
    import matplotlib  # noqa: PLC0415  an extra

    matplotlib.use("Agg")
    from matplotlib import pyplot  # noqa: PLC0415  after its backend is chosen

    figure, axes = pyplot.subplots(figsize=(11, 0.2 * len(rows) + 1), layout="constrained")
    places = range(len(rows))
    ratios = [r["ratio"] for r in rows]
    colours = [_OURS if ratio >= 1 else _THEIRS for ratio in ratios]
    axes.barh(places, [ratio - 1 for ratio in ratios], left=1, color=colours, height=0.7)
    for place, row in zip(places, rows, strict=True):
        axes.plot([row["p20"], row["p80"]], [place, place], color="black", linewidth=1)
        if row["goal"] is not None:
            axes.plot([row["goal"]] * 2, [place - 0.45, place + 0.45], color="black", linewidth=2)
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xscale("log")
    ticks = [t for t in (0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128) if min(ratios) / 2 <= t <= max(ratios) * 2]
    axes.set_xticks(ticks, [f"{t:g}×" for t in ticks], fontsize=7)
    axes.minorticks_off()
    labels = [f"{r['work']} {r['size']}, {r['threads']} thread{'s'[: r['threads'] - 1]} / {r['peer']}" for r in rows]
    axes.set_yticks(places, labels, fontsize=7)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("peer's time / ours (cpu-measured)", fontsize=8)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
