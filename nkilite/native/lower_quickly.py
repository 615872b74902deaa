"""Program to native table in a hurry: every instruction by itself, with micro-kernels that know no sizes.

Entries have the sizes behind the words of the instruction. Such a program runs on one thread.
"""

from __future__ import annotations

import numpy as np

from nkilite.host.cpu import Host
from nkilite.ir.columns import Columns
from nkilite.native.effort import quick_stack
from nkilite.native.forms import forms
from nkilite.native.library import Source
from nkilite.native.lower import Lowered
from nkilite.native.meetings import work
from nkilite.native.operands import encode
from nkilite.native.walker import LEAD, above_width
from nkilite.schedule.place import CpuPlacement
from nkilite.schedule.schedule import Schedule


def lower_quickly(schedule: Schedule, placement: CpuPlacement, host: Host) -> Lowered:
    """Find a micro-kernel for every kind of instruction, or write it, and translate instructions to table entries."""
    program = schedule.program
    encoded = encode(program, placement)
    found = forms(host).of(encoded.members)
    numbers: dict[str, int] = {}
    sources: list[Source] = []
    for written, _ in found:
        if numbers.setdefault(written.source.name, len(numbers)) == len(sources):
            sources.append(written.source)
    which = np.array([numbers[written.source.name] for written, _ in found], np.int64)
    ns = np.array([work(member.signature, host.products) for member in encoded.members])
    flags = np.array([LEAD if written.leads else 0 for written, _ in found], np.int64)

    before = Columns.of(program).starts
    extra = np.array([len(sizes) for _, sizes in found], np.int64)[encoded.kinds]
    widths = np.diff(np.append(before, len(encoded.code))) + extra
    starts = np.cumsum(widths) - widths
    table = np.empty(int(widths.sum()), np.int64)
    table[np.arange(len(encoded.code)) + np.repeat(starts - before, widths - extra)] = encoded.code
    for kind, (_, sizes) in enumerate(found):
        ends = (starts + widths)[encoded.kinds == kind]
        table[ends[:, None] + np.arange(-len(sizes), 0)] = sizes
    table[starts] = which[encoded.kinds]
    table[starts + 1] = widths | above_width(flags, ns)[encoded.kinds]
    sizes_of = {written.source.name: written.text_bytes for written, _ in found}
    return Lowered(
        sources, table, starts, np.arange(program.count), 1,
        max((written.stack for written, _ in found), default=0) + quick_stack(sizes_of.values()),
        np.bincount(which[encoded.kinds], ns[encoded.kinds], len(sources)),
        np.array([sizes_of[s.name] for s in sources], np.int64), False,
    )
