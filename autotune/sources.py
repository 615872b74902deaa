"""What the command line names: a kernel, the workloads it is tuned on, and its space."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Sequence
from typing import Any

from autotune.errors import InvalidShapes
from autotune.objective import Workload
from autotune.space import Space, infer, parse_parameter
from nkilite.cli.specs import dtype_named, parse_arguments

_NAMED_SIZES = re.compile(r"\w+=\d+(,\w+=\d+)*")


def workload_from(
    kernel: Any, shapes: str, dtype: str = "float32", seed: int = 0, fixed: Sequence[str] = ()
) -> Workload:
    """A workload from ``M=512,N=512,K=128`` (sizes the module's `inputs` takes) or ``512x128:bf16 512x128:bf16``.

    The module's `reference` and `tolerance` are taken where its `inputs` is.

    Args:
        fixed: NAME=VALUE of further compile-time arguments.

    Raises:
        InvalidShapes: sizes are named but the module has no `inputs` that takes them.
        InvalidArgumentSpec, UnknownDtype: an argument, or `dtype`, cannot be read.
    """
    positional, named = parse_arguments(list(fixed))
    if not _NAMED_SIZES.fullmatch(shapes):
        arrays, more = parse_arguments(shapes.split(), seed)
        return Workload.of(kernel, *arrays, *positional, label=shapes, **more, **named)
    dtype = str(dtype_named(dtype))
    module = sys.modules[kernel.__module__]
    make = getattr(module, "inputs", None)
    sizes = {name: int(value) for name, value in (item.split("=") for item in shapes.split(","))}
    if make is None:
        raise InvalidShapes(shapes=shapes, problem=f"{kernel.__module__} has no function `inputs` that takes sizes")
    try:
        arrays = make(dtype=dtype, seed=seed, **sizes)
    except TypeError:
        takes = ", ".join(n for n, p in inspect.signature(make).parameters.items() if p.kind is p.KEYWORD_ONLY)
        raise InvalidShapes(shapes=shapes, problem=f"`inputs` of {kernel.__module__} takes {takes}") from None
    tolerance = getattr(module, "tolerance", None)
    return Workload.of(
        kernel, *arrays, *positional, label=f"{shapes} {dtype}", reference=getattr(module, "reference", None),
        tolerance=tolerance(**sizes) if tolerance is not None else None, **named,
    )


def space_from(kernel: Any, parameters: Sequence[str], constraints: Sequence[str]) -> Space:
    """The space of --param and --constraint: parameters named replace those of the kernel's own space.

    Raises:
        InvalidParameterSpec, InvalidSpace, NoSpace.
    """
    named = dict(parse_parameter(p) for p in parameters)
    tuning = getattr(kernel, "tuning", None)
    if named:
        return Space(named, tuple(constraints))
    own = tuning.space if tuning is not None else infer(kernel)
    return Space(own.parameters, (*own.constraints, *constraints)) if constraints else own
