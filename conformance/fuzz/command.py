"""``python -m conformance fuzz``: the command line, and the processes that run programs."""

from __future__ import annotations

import multiprocessing
import time
import traceback
import warnings
from multiprocessing.connection import Connection, wait
from typing import Annotated, NamedTuple

import typer

from .differ import Difference, Refused, Way, differences, teams
from .draw import draw
from .program import Program
from .shrink import shrunk

_CHUNK = 200  # programs of a process: their machine code is never given back
_PATIENCE = 120.0  # seconds for one program, with the machine to itself
_SHRUNK = 3  # failures that are worth the time


class _Found(NamedTuple):
    """What came of a seed: nothing wrong, or what is; `program` is its text."""

    seed: int
    kind: str  # "ran", "refused" or "failed"
    what: str = ""
    program: str = ""


class _Worker:
    """A process that runs the programs of some seeds."""

    def __init__(self, seeds: list[int], shrink: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe(duplex=False)
        self.process = context.Process(target=_work, args=(seeds, shrink, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.left = list(seeds)
        self.since = time.monotonic()
        self.ended = False


def main(
    programs: Annotated[int, typer.Option(min=1, help="How many programs to run.")] = 1000,
    seed: Annotated[int, typer.Option(help="The seed of the first; the others count up from it.")] = 0,
    jobs: Annotated[int, typer.Option(min=1, help="Processes at a time.")] = 2,
    shrink: Annotated[bool, typer.Option(help="Shorten the first programs that fail.")] = True,
) -> None:
    """Run random programs simulated, on every CPU level, fused and not, on 1, 2 and 5 threads, and compare."""
    began = time.monotonic()
    waiting = [list(range(at, min(at + _CHUNK, seed + programs))) for at in range(seed, seed + programs, _CHUNK)]
    if len(waiting) < jobs:
        waiting = [chunk for i in range(jobs) if (chunk := list(range(seed + i, seed + programs, jobs)))]
    waiting.reverse()
    workers: list[_Worker] = []
    counts = {"ran": 0, "refused": 0, "failed": 0}
    while waiting or workers:
        while waiting and len(workers) < jobs:
            workers.append(_Worker(waiting.pop(), shrink and counts["failed"] < _SHRUNK))
        ready = wait([worker.connection for worker in workers], timeout=1.0)
        for worker in list(workers):
            found = _next(worker) if worker.connection in ready else _late(worker)
            if found is not None:
                counts[found.kind] += 1
                _tell(found, counts, began)
            if worker.ended:
                workers.remove(worker)
                if worker.left:
                    waiting.append(worker.left)
    took = time.monotonic() - began
    ran = sum(counts.values())
    typer.echo(
        f"{ran} programs from seed {seed} in {took:.0f} s ({ran / took:.2f} a second): {counts['ran']} alike in every "
        f"way, {counts['refused']} refused in every way, {counts['failed']} wrong"
    )
    raise typer.Exit(1 if counts["failed"] else 0)


def _next(worker: _Worker) -> _Found | None:
    """What a worker has to say; if it has died, that."""
    try:
        found: _Found = worker.connection.recv()
    except EOFError:
        worker.ended = True
        worker.process.join()
        if not worker.left:
            return None
        return _ended(worker, f"the process ended with status {worker.process.exitcode}")
    worker.left.remove(found.seed)
    worker.since = time.monotonic()
    return found


def _late(worker: _Worker) -> _Found | None:
    """A program that does not come to an end."""
    if not worker.left or time.monotonic() - worker.since < _PATIENCE * 10:
        return None
    worker.ended = True
    worker.process.kill()
    worker.process.join()
    return _ended(worker, "it does not end")


def _ended(worker: _Worker, what: str) -> _Found:
    seed = worker.left.pop(0)
    return _Found(seed, "failed", what, draw(seed).text)


def _tell(found: _Found, counts: dict[str, int], began: float) -> None:
    if found.kind == "failed":
        typer.echo(f"\nseed {found.seed}: {found.what}\n\n{found.program}")
    ran = sum(counts.values())
    if ran % 100 == 0:
        typer.echo(f"{ran} programs, {ran / (time.monotonic() - began):.2f} a second", err=True)


def _work(seeds: list[int], shrink: bool, connection: Connection) -> None:
    """Run programs and report each."""
    warnings.simplefilter("ignore")
    shortened = 0 if shrink else _SHRUNK
    with teams():
        for seed in seeds:
            found = _run(seed, shortened < _SHRUNK)
            shortened += found.kind == "failed"
            connection.send(found)
    connection.close()


def _run(seed: int, shrink: bool) -> _Found:
    program = draw(seed)
    try:
        wrong = next(differences(program), None)
    except Refused as refused:
        return _Found(seed, "refused", str(refused))
    except Exception:
        return _Found(seed, "failed", traceback.format_exc(), program.text)
    if wrong is None:
        return _Found(seed, "ran")
    if shrink:
        program = shrunk(program, lambda fewer: _fails(fewer, wrong.way))
        wrong = next(differences(program, _against(wrong.way)), wrong)
    how = f"# the same array: {program.same}, {program.target}, {program.options}"
    return _Found(seed, "failed", str(wrong), f"{how}\n{program.text}")


def _against(way: Way) -> list[Way]:
    """What to run to see a difference again: the other way of fusing, too."""
    return [way._replace(fuse=not way.fuse), way]


def _fails(program: Program, way: Way) -> bool:
    try:
        found: Difference | None = next(differences(program, _against(way)), None)
    except Exception:  # not the same mistake
        return False
    return found is not None
