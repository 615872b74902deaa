"""Profiles as rich tables: side by side, by source line, by waiting."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from rich.table import Table
from rich.text import Text

from nkilite.plain import plain
from nkilite.profiling.advice import advise
from nkilite.profiling.meetings import active_us, meeting_waits, waiting_us
from nkilite.profiling.overlap import communication, exposed_us
from nkilite.profiling.queues import named_on
from nkilite.profiling.result import Profile

__all__ = [
    "advice_text",
    "communication_table",
    "comparison",
    "line_table",
    "meeting_table",
    "size_text",
    "time_text",
    "wait_table",
]


def time_text(us: float) -> str:
    """A time with three or four significant digits and its unit."""
    if us >= 1000:
        return f"{us / 1000:.2f} ms"
    return f"{us:.2f} µs" if us >= 1 else f"{us * 1000:.0f} ns"


def size_text(count: float) -> str:
    """Bytes in binary units."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def _percent(fraction: float) -> str:
    return f"{fraction:.1%}"


def _intensity(p: Profile) -> str:
    value = p.arithmetic_intensity
    return "no HBM traffic" if math.isinf(value) else f"{value:.1f} FLOP/B"


def _interval(p: Profile) -> str:
    return f"{time_text(p.accuracy.low_us)} to {time_text(p.accuracy.high_us)}"


def _engine(p: Profile, name: str) -> str:
    """What an engine of every core did."""
    uses = [p.engines.get(named_on(name, core, p.cores)) for core in range(p.cores)]
    shown = [f"{time_text(use.busy_us)}  {use.active:.0%}" if use and use.instructions else "–" for use in uses]
    return "–" if set(shown) == {"–"} else " | ".join(shown)


_ROWS: list[tuple[str, Callable[[Profile], str]]] = [
    ("instructions", lambda p: f"{len(p.workload):,}"),
    ("Tensor busy, active", lambda p: _engine(p, "Tensor")),
    ("Vector", lambda p: _engine(p, "Vector")),
    ("Scalar", lambda p: _engine(p, "Scalar")),
    ("GpSimd", lambda p: _engine(p, "GpSimd")),
    ("DMA (any engine)", lambda p: _engine(p, "DMA")),
    ("DMA engines, mean", lambda p: _percent(p.dma_utilization)),
    ("bottleneck", lambda p: p.bottleneck),
    ("HBM read", lambda p: size_text(p.hbm_read_bytes)),
    ("HBM written", lambda p: size_text(p.hbm_write_bytes)),
    ("MFU", lambda p: _percent(p.mfu)),
    ("MBU", lambda p: _percent(p.mbu)),
    ("arithmetic intensity", _intensity),
    ("SBUF peak per partition", lambda p: size_text(p.sbuf_peak_bytes)),
    ("PSUM peak", lambda p: f"{p.psum_peak_banks} banks"),
]


def comparison(profiles: Sequence[Profile]) -> Table:
    """Profiles side by side; later latencies are also shown against the first."""
    first = profiles[0]
    errors = "; ".join(dict.fromkeys(p.error for p in profiles))
    table = Table(title=f"Profile ({first.order} order; {errors})", title_justify="left")
    table.add_column("")
    for p in profiles:
        table.add_column(f"{p.name}\n{p.machine}", justify="right")
    latencies = [time_text(p.latency_us) for p in profiles]
    for i, p in enumerate(profiles[1:], 1):
        latencies[i] += f"  {p.latency_us / first.latency_us - 1:+.1%}"
    table.add_row("latency", *latencies, style="bold")
    table.add_row("expected, 8 times of 10", *(_interval(p) for p in profiles))
    table.add_row("in a captured profile", *(time_text(p.captured_us) for p in profiles))
    for name, value in _ROWS:
        table.add_row(name, *(value(p) for p in profiles))
    if any(p.cores > 1 for p in profiles):
        table.add_row("cores active", *(" | ".join(map(time_text, active_us(p))) for p in profiles))
        table.add_row("waiting for each other", *(" | ".join(map(time_text, waiting_us(p))) for p in profiles))
    if any(p.collectives for p in profiles):
        table.add_row("Collectives", *(_engine(p, "Collectives") for p in profiles))
        table.add_row("communication not hidden", *(time_text(exposed_us(p)) for p in profiles))
    if any(p.overflow or p.spills for p in profiles):
        table.add_row("fits on chip", *(_fit(p) for p in profiles))
    if any(p.guessed_loops for p in profiles):
        table.add_row("loops taken to run once", *(str(p.guessed_loops) for p in profiles))
    return table


def _fit(profile: Profile) -> str:
    if profile.spills is not None:
        moved = profile.spills.saved_bytes + profile.spills.reloaded_bytes
        return f"no: spills {moved / 2**20:.1f} MiB"
    return "no: lower bound" if profile.overflow else "yes"


def line_table(profile: Profile, count: int = 10) -> Table:
    """The source lines that took the most engine time."""
    table = Table(title=f"{profile.name} on {profile.machine}: source lines by engine time (modelled)",
                  title_justify="left")
    for heading in ("line", "code", "instructions", "engine time", "on the critical path"):
        table.add_column(heading, justify="left" if heading in ("line", "code") else "right", no_wrap=heading != "code")
    for cost in profile.lines[:count]:
        times = ", ".join(f"{name} {time_text(us)}" for name, us in cost.busy_us.items())
        table.add_row(
            f"{cost.location.file.rpartition('/')[2]}:{cost.location.line}", cost.location.source.strip(),
            f"{cost.instructions:,}", times, time_text(cost.critical_us),
        )
    return table


def wait_table(profile: Profile, count: int = 6) -> Table:
    """What the busiest compute engine waited for, and its longest gaps."""
    engines = {k: v for k, v in profile.engines.items() if not k.startswith(("DMA", "Collectives")) and v.instructions}
    table = Table(title=f"{profile.name} on {profile.machine}: longest idle gaps (modelled)", title_justify="left")
    for heading in ("engine", "at", "idle for", "to run", "waited for"):
        table.add_column(heading)
    if not engines:
        return table
    name = max(engines.items(), key=lambda item: item[1].busy_us)[0]
    for gap in [g for g in profile.gaps if g.queue == name][:count]:
        table.add_row(
            gap.queue, time_text(gap.start_us), time_text(gap.length_us), profile.describe(gap.instruction),
            profile.describe(gap.cause),
        )
    totals = ", ".join(f"{cause} {time_text(us)}" for cause, us in profile.waits(name).items())
    table.caption = f"{name} idle in all: {totals or 'never'}"
    return table


def communication_table(profile: Profile, count: int = 6) -> Table:
    """The collectives, and how much of their time nothing else hides."""
    table = Table(title=f"{profile.name} on {profile.machine}: communication (modelled)", title_justify="left")
    for heading in ("line", "collective", "ranks", "size", "times", "by", "in all", "not hidden", "delayed by DMA"):
        table.add_column(heading)
    for found in communication(profile)[:count]:
        kind, group, size, transfer = found.collective
        table.add_row(
            f"{found.location.file.rpartition('/')[2]}:{found.location.line}", kind, str(len(group)), size_text(size),
            str(found.times), transfer.algorithm, time_text(found.busy_us), time_text(found.exposed_us),
            time_text(found.delayed_us),
        )
    return table


def meeting_table(profile: Profile, count: int = 6) -> Table:
    """Where cores waited longest for each other."""
    table = Table(title=f"{profile.name} on {profile.machine}: cores that wait for each other (modelled)",
                  title_justify="left")
    for heading in ("meeting", "code", "who waits", "times", "in all", "because of"):
        table.add_column(heading, no_wrap=heading != "code")
    for wait in meeting_waits(profile)[:count]:
        table.add_row(
            f"{wait.location.file.rpartition('/')[2]}:{wait.location.line}", wait.location.source.strip(),
            f"core {wait.core} for {wait.other}", str(wait.meetings), time_text(wait.waited_us),
            profile.describe(wait.cause),
        )
    return table


def advice_text(profile: Profile) -> Text:
    """The findings, one paragraph each."""
    found = advise(profile)
    text = Text(plain(f"{profile.name} on {profile.machine}: advice (modelled)\n"), style="italic")
    if not found:
        text.append("  nothing stands out\n", style="not italic")
    for advice in found:
        where = f" {advice.location.file.rpartition('/')[2]}:{advice.location.line}" if advice.location else ""
        text.append(plain(f"  {advice.kind}{where}: "), style="bold not italic")
        text.append(plain(f"{advice.figure}. {advice.text}\n"), style="not italic")
    return text
