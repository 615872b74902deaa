"""autotune: finds the tile sizes of NKI kernels, modelled on the chip or measured on this CPU.

    @autotune.tune(space={"TILES": [1, 2, 4, 8]})
    @nki.jit
    def kernel(x, TILES=2): ...

    result = autotune.search(kernel, (x,), objective="trn2", database="autotune.jsonl")
    autotune.use("autotune.jsonl")      # from here on kernel(x) runs in its best configuration

Modules, from the bottom up:

    errors      one class per mistake
    space       parameters, conditions, constraints; inference; the command line's notation
    outcome     a figure or a typed rejection, and their histogram
    context     what a result belongs to: source, arguments, machine, versions
    database    append-only memory of trials, export and import
    objective   workloads, modelled latency
    timing      statistics of noisy times
    measuring, isolation, measured   the cpu objective: its process, the parent's end, the objective
    samplers    optuna behind ask and tell
    study       the search
    lookup      tuned configurations at launch
    api         tune and search
    triton      configurations in the manner of triton.autotune
    present, sources, command     the command line
"""

from autotune import triton
from autotune.api import search, tune
from autotune.database import Database
from autotune.lookup import use
from autotune.objective import Workload
from autotune.space import Space, choice, integers, powers_of_two
from autotune.study import Result, Study
from autotune.timing import Protocol

__all__ = [
    "Database",
    "Protocol",
    "Result",
    "Space",
    "Study",
    "Workload",
    "choice",
    "integers",
    "powers_of_two",
    "search",
    "triton",
    "tune",
    "use",
]
