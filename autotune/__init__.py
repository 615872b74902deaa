"""autotune: finds the tile sizes of NKI kernels, modelled on the chip or measured on this CPU.

    @autotune.tune(space={"TILES": [1, 2, 4, 8]})
    @nki.jit
    def kernel(x, TILES=2): ...

    result = autotune.search(kernel, (x,), objective="trn2", database="autotune.jsonl")
    autotune.use("autotune.jsonl")      # from here on kernel(x) runs in its best configuration

Modules and packages, from the bottom up:

    errors      one class per mistake
    children    processes that a search starts
    expressions constraints in words
    figures     what can be minimized: names, units, labels
    space       parameters, conditions, constraints; inference; the command line's notation
    outcome     a figure or a typed rejection, and their histogram
    context     what a result belongs to: source, arguments, machine, versions
    database    append-only memory of trials, export and import
    objective   workloads, modelled latency
    measure/    the cpu objective
    explore/    samplers, the study, Pareto fronts
    lookup      tuned configurations at launch
    api         tune and search
    triton      configurations in the manner of triton.autotune
    plots/      pictures of a database
    sources     kernels, arguments and spaces in the words of the command line
    shared/     one study on several processes and machines
    cli/        the command line
"""

from autotune import plots, triton
from autotune.api import search, tune
from autotune.database import Database
from autotune.explore.study import Result, Study
from autotune.lookup import use
from autotune.measure.timing import Protocol
from autotune.objective import Workload
from autotune.shared.coordinator import distribute
from autotune.shared.specification import Specification
from autotune.space import Space, choice, integers, powers_of_two

__all__ = [
    "Database",
    "Protocol",
    "Result",
    "Space",
    "Specification",
    "Study",
    "Workload",
    "choice",
    "distribute",
    "integers",
    "plots",
    "powers_of_two",
    "search",
    "triton",
    "tune",
    "use",
]
