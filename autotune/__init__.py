"""autotune: finds the tile sizes of NKI kernels, modelled on the chip or measured on this CPU.

    @autotune.tune(space={"TILES": [1, 2, 4, 8]})
    @nki.jit
    def kernel(x, TILES=2): ...

    result = autotune.search(kernel, (x,), objective="trn2", database="autotune.jsonl")
    autotune.use("autotune.jsonl")      # from here on kernel(x) runs in its best configuration

Modules, from the bottom up:

    errors      one class per mistake
    figures     what can be minimized: names, units, labels
    pareto      the front of several figures
    space       parameters, conditions, constraints; inference; the command line's notation
    outcome     a figure or a typed rejection, and their histogram
    context     what a result belongs to: source, arguments, machine, versions
    database    append-only memory of trials, export and import
    objective   workloads, modelled latency
    timing      statistics of noisy times
    turnstile   who compiles and who measures on this host
    measuring, isolation, measured   the cpu objective: its processes, the parent's end, the objective
    several     several figures at once
    opening     what a measured search begins with
    samplers    optuna behind ask and tell
    study       the search
    lookup      tuned configurations at launch
    api         tune and search
    triton      configurations in the manner of triton.autotune
    sources, specification        a study in the words of the command line
    storage, shared, worker, coordinator   one study on several processes and machines
    plots       pictures of a database
    present, command, command_shared, dashboard   the command line
"""

from autotune import plots, triton
from autotune.api import search, tune
from autotune.coordinator import distribute
from autotune.database import Database
from autotune.lookup import use
from autotune.objective import Workload
from autotune.space import Space, choice, integers, powers_of_two
from autotune.specification import Specification
from autotune.study import Result, Study
from autotune.timing import Protocol

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
