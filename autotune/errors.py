"""Every error the tuner raises: one small class per mistake, in the manner of nkilite.errors."""

from __future__ import annotations

from typing import Any

from nkilite.errors import NkiError
from nkilite.location import UNKNOWN, Location


class TuningError(NkiError):
    """Base of the tuner's errors; those about a kernel name the line of its definition."""

    def __init__(self, *args: Any, location: Location = UNKNOWN, **fields: Any) -> None:
        super().__init__(*args, location=location, **fields)


class InvalidSpace(TuningError, ValueError):
    template = "search space: {problem}."
    remedy = "give every parameter at least one value, for example space={{'TILES': [1, 2, 4]}}."


class InvalidParameterSpec(TuningError, ValueError):
    template = "cannot read --param {spec!r}: {problem}."
    remedy = "write NAME=1,2,4 for a choice, NAME=1..16 or NAME=2..64:2 for a range, NAME=pow2:1..64 for powers of two."


class NoSpace(TuningError, ValueError):
    template = "kernel {kernel!r} has no search space: no SPACE beside it and no keyword meta-parameters."
    remedy = "decorate it with @autotune.tune(space={{...}}) or pass --param NAME=VALUES."


class UnknownParameter(TuningError, ValueError):
    template = "the search space tunes {name!r}, which kernel {kernel!r} does not take."
    remedy = "its parameters are {choices}."


class UnknownObjective(TuningError, ValueError):
    template = "objective {found!r} is not one of {choices}."
    remedy = (
        "targets (or mychip.toml) are modelled latencies, sbuf is the modelled peak of SBUF, cpu (time) and error "
        "(numerical) are measured on this machine; several are separated by commas, each named once."
    )


class UnknownSampler(TuningError, ValueError):
    template = "sampler {found!r} is not one of {choices}."
    remedy = "tpe is the default."


class OneFigureOnly(TuningError, ValueError):
    template = "sampler {sampler!r} minimizes one figure, not several."
    remedy = "several take one of {choices}."


class NothingLegal(TuningError, ValueError):
    template = "none of the {count} configurations tried for kernel {kernel!r} is legal:\n{histogram}"
    remedy = "{advice}"


class ReferenceFailed(TuningError, ValueError):
    template = (
        "kernel {kernel!r} has no reference, and its default configuration, which stands in for one, fails: {problem}"
    )
    remedy = "pass reference=..., or a default configuration that runs."


class NotImportable(TuningError, ValueError):
    template = "kernel {kernel!r} cannot be loaded by the measuring process: {problem}."
    remedy = (
        "see that importing its module works in a fresh process; the modelled objectives (trn2, ...) tune it where it "
        "is."
    )


class NestedSearch(TuningError, RuntimeError):
    template = (
        "a search was started while another one loads its kernel, whose file starts searches: each would start the "
        "next, without end."
    )
    remedy = "put what starts it under if __name__ == '__main__': in the program, so that loading a kernel runs none."


class UntrustedKernel(TuningError, ValueError):
    template = "study {study!r} is of kernel {kernel!r}, which this worker was not told to run: it may run {allowed}."
    remedy = "name it with --kernel if it and its file are to be trusted; a worker runs what is named to it alone."


class InvalidDatabase(TuningError, ValueError):
    template = "{path} is not a database of trials: {problem}."
    remedy = "autotune run writes one; autotune import adds an export to one."


class MissingLibrary(TuningError, ImportError):
    template = "plots need {library}, which cannot be imported: {problem}."
    remedy = "pip install 'nkilite[plots]'."


class InvalidPlot(TuningError, ValueError):
    template = "cannot plot: {problem}."
    remedy = "formats are html and png; axes are two parameters that were varied."


class NothingToPlot(TuningError, ValueError):
    template = "there is no accepted configuration of {kernel} in {path}."
    remedy = "autotune show lists what a database holds."


class InvalidShapes(TuningError, ValueError):
    template = "cannot read --shapes {shapes!r}: {problem}."
    remedy = "write one spec per argument ('512x128:bf16 128x64'), or NAME=SIZE,... where the module has `inputs`."


class MissingExtra(TuningError, ImportError):
    template = "{what} needs packages that are not installed: {problem}."
    remedy = "pip install nkilite[{extra}]."


class InvalidStorage(TuningError, ValueError):
    template = "cannot use the storage {url}: {problem}."
    remedy = (
        "write journal:///path/study.log, postgresql://, mysql:// or sqlite:///path of a database, or grpc://host:port "
        "of a server that autotune proxy started."
    )


class StorageLost(TuningError, ConnectionError):
    template = "the storage of the study does not answer any more: {problem}."
    remedy = (
        "what was finished is in the storage, and in the database of autotune run; once the storage is back, the same "
        "commands continue."
    )


class NoSharedStudy(TuningError, ValueError):
    template = "nothing to work on in this storage: {problem}."
    remedy = "start one with autotune run --storage; --study names it."


class StudyMismatch(TuningError, ValueError):
    template = "study {study!r} cannot be worked on here: {difference}."
    remedy = "use the same checkout and versions on every machine (and, for cpu, the same CPU), or another --study."


class WorkersLost(TuningError, RuntimeError):
    template = "the workers of study {study!r} have ended: {problem}."
    remedy = "what they finished is kept; --storage with the same arguments continues."
