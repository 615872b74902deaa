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

import importlib as _importlib
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

from autotune import triton
from autotune.api import search, tune
from autotune.database import Database
from autotune.explore.study import Result, Study
from autotune.lookup import use
from autotune.measure.timing import Protocol
from autotune.objective import Workload
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

if _TYPE_CHECKING:
    from autotune import plots
    from autotune.shared.coordinator import distribute
    from autotune.shared.specification import Specification
else:  # a checker that sees it believes that every name exists
    _ON_FIRST_USE = {
        "plots": ("autotune.plots", None),
        "distribute": ("autotune.shared.coordinator", "distribute"),
        "Specification": ("autotune.shared.specification", "Specification"),
    }

    def __getattr__(name: str) -> _Any:
        if name not in _ON_FIRST_USE:
            raise AttributeError(f"module 'autotune' has no attribute {name!r}")
        module, attribute = _ON_FIRST_USE[name]  # what launches and searches of one process do not need
        loaded = _importlib.import_module(module)
        found = globals()[name] = loaded if attribute is None else getattr(loaded, attribute)
        return found
