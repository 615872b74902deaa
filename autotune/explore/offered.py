"""Which samplers there are, what each needs, and whether it can do what is asked: known before optuna is imported."""

from __future__ import annotations

from importlib.util import find_spec

from autotune.errors import MissingExtra, OneFigureOnly, UnknownSampler

#: What the extra of a sampler's name installs.
MODULES: dict[str, tuple[str, ...]] = {
    "tpe": (), "random": (), "cmaes": ("cmaes",), "gp": ("torch", "scipy"), "nsga2": (), "qmc": (),
}
BRUTE_FORCE = "grid"
OF_ONE_FIGURE = ("cmaes",)
NAMES = (*MODULES, BRUTE_FORCE)


def require(sampler: str, figures: int = 1) -> None:
    """Check that a sampler exists, is installed and searches for so many figures.

    Raises:
        UnknownSampler, MissingExtra, OneFigureOnly.
    """
    if sampler not in NAMES:
        raise UnknownSampler(found=sampler, choices=", ".join(NAMES))
    for name in MODULES.get(sampler, ()):
        if find_spec(name) is None:
            raise MissingExtra(extra=sampler, what=f"sampler {sampler!r}", problem=f"no module named {name!r}")
    if figures > 1 and sampler in OF_ONE_FIGURE:
        raise OneFigureOnly(sampler=sampler, choices=", ".join(n for n in NAMES if n not in OF_ONE_FIGURE))
