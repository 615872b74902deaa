"""Kernels as operators of torch: in torch.compile and torch.export, under vmap and autograd, on fake and meta tensors.

Plain CPU tensors go straight to native code. A call that torch has to see as a whole, because it traces, maps,
differentiates or only wants shapes, goes through a custom operator that is registered when it is first needed: its
schema, its shapes and what it writes follow from the trace. torch itself is never imported from here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import numpy as np

from nkilite.dtypes import as_dtype
from nkilite.errors import ArgumentError
from nkilite.frameworks.calls import Call, Place, take_apart
from nkilite.frameworks.imports import once_imported
from nkilite.frameworks.outline import Outline, outline
from nkilite.frameworks.tensors import viewed
from nkilite.location import here
from nkilite.notices import Notice, give
from nkilite.runtime import delegation
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.kernel import Kernel, numbered
from nkilite.runtime.opaque import Foreign
from nkilite.runtime.results import Result
from nkilite.runtime.specialization import Specialization

if TYPE_CHECKING:
    from torch import Tensor

_NAMESPACE = "nkilite"


class MissingGradient(ArgumentError, RuntimeError):
    template = "argument {name!r} of kernel {kernel!r} requires a gradient, and the kernel has none."
    remedy = (
        "give it one with {kernel}.register_autograd(backward, setup_context=...), or call it under torch.no_grad() "
        "or with {name}.detach()."
    )


class GradientDropped(UserWarning):
    """A result is detached from an argument that requires a gradient, as where torch_xla runs the kernel."""


class WritesWithGradient(ArgumentError, RuntimeError):
    template = "kernel {kernel!r} writes its argument {name!r}: torch has no gradients for operators that write."
    remedy = "let the kernel return a new tensor, or call it under torch.no_grad()."


class OperatorChanged(ArgumentError, RuntimeError):
    template = "kernel {kernel!r} {problem} than when torch recorded a call of it."
    remedy = "compile or export the model again; torch._dynamo.reset() forgets what torch has compiled."


class WrittenInMap(ArgumentError, ValueError):
    template = "kernel {kernel!r} writes its argument {name!r}, which is one and the same for all that vmap maps over."
    remedy = "map over that argument, too."


class InvalidGradient(ArgumentError, ValueError):
    template = "the backward function of kernel {kernel!r} returns {found} gradients for {wanted} parameters."
    remedy = "return one for each parameter in order, None where there is none."


def wanted(args: Args, kwargs: Kwargs) -> bool:
    """Whether torch has to see a call: one of its tensors is more than memory of this process."""
    torch = sys.modules.get("torch")
    if torch is None:
        return False
    traces = torch.utils._python_dispatch._len_torch_dispatch_stack() > 0
    differentiates = torch.is_grad_enabled()
    plain = (torch.Tensor, torch.nn.Parameter)
    found = []

    def leaf(value: object, _: str) -> object:
        if isinstance(value, torch.Tensor):
            found.append(
                traces or (differentiates and value.requires_grad) or type(value) not in plain
                or value.device.type == "meta" or torch._C._functorch.is_functorch_wrapped_tensor(value)
            )
        return value

    map_leaves([list(args), list(kwargs.values())], leaf)
    return any(found)


def compiling() -> bool:
    """Whether torch.compile or torch.export is reading the code that calls."""
    torch = sys.modules.get("torch")
    return torch is not None and torch.compiler.is_compiling()


def call_in_graph(kernel: Kernel[...], args: Args, kwargs: Kwargs) -> Foreign:
    """A call in code that torch.compile reads: a node of the graph."""
    return _node(kernel.number, args, kwargs)  # graphs hold numbers, not kernels


def _node(number: int, args: Args, kwargs: Kwargs) -> Foreign:
    """What the node does, also while torch runs it on fake tensors."""
    return call(numbered[number], _thawed(args), _thawed(kwargs))


def _thawed(value: Foreign) -> Foreign:
    """A nesting of containers without those of graphs, which refuse to be changed."""
    frozen = sys.modules["torch.fx.immutable_collections"]
    kind = type(value)
    if kind in (dict, frozen.immutable_dict):
        return {name: _thawed(item) for name, item in value.items()}
    if kind in (list, frozen.immutable_list):
        return [_thawed(item) for item in value]
    return tuple(map(_thawed, value)) if kind is tuple else value


def call(kernel: Kernel[...], args: Args, kwargs: Kwargs) -> Foreign:
    """A call that torch has to see as a whole.

    Raises:
        MissingGradient, WritesWithGradient: an argument requires a gradient that there is none for.
    """
    torch = sys.modules["torch"]
    parameters = list(kernel.signature.parameters)
    taken = take_apart(args, kwargs, parameters, torch.Tensor, (float, torch.SymFloat), (torch.SymInt,))
    found = _known_outline(kernel, taken, args, kwargs)
    detached = False
    if torch.is_grad_enabled():
        detached = _detaches and kernel.gradient is None
        if detached:
            _say_dropped(kernel, taken)
        else:
            _check_gradients(kernel, taken, found)
    with torch.no_grad() if detached else nullcontext():
        outputs = _operator(kernel, taken, found).overload(*taken.tensors, *taken.floats)
    return _assembled(found.returned, taken.tensors, _listed(outputs))


_detaches = False


def detach_without_gradient() -> None:
    """Let kernels that have no gradient return tensors without one, with a warning, as torch_xla does."""
    global _detaches
    _detaches = True


def _say_dropped(kernel: Kernel[...], taken: Call) -> None:
    names = [n for n, t in zip(taken.names, taken.tensors, strict=True) if t.requires_grad]
    if names:
        what = f"argument {names[0]!r} of kernel {kernel.__name__!r} requires a gradient: its results are detached."
        where = here()
        give(Notice(what, GradientDropped, where.file, where.line, once=True))


def _check_gradients(kernel: Kernel[...], taken: Call, found: Outline) -> None:
    names = [n for n, t in zip(taken.names, taken.tensors, strict=True) if t.requires_grad]
    if names and kernel.gradient is None:
        raise MissingGradient(kernel=kernel.__name__, name=names[0])
    if names and found.written:
        raise WritesWithGradient(kernel=kernel.__name__, name=taken.names[found.written[0]])


def _outline(kernel: Kernel[...], taken: Call) -> Outline:
    """What a call does."""
    stand_ins = [np.empty([int(n) for n in t.shape], _dtype_of(t)) for t in taken.tensors]
    return outline(kernel, taken.of(stand_ins, [f if isinstance(f, float) else _hint(f) for f in taken.floats]))


_outlines: WeakKeyDictionary[Specialization, dict[Hashable, Outline]] = WeakKeyDictionary()


def _known_outline(kernel: Kernel[...], taken: Call, args: Args, kwargs: Kwargs) -> Outline:
    """What a call does, from an earlier one that is proven to do the same."""
    with sys.modules["torch"].no_grad():
        proven = kernel.proven(*args, **kwargs)
    if proven is None:
        return _outline(kernel, taken)
    own = _outlines.setdefault(proven, {})
    found = own.get(taken.shape)
    if found is None:
        found = own[taken.shape] = _outline(kernel, taken)
    return found


def _hint(symbol: Foreign) -> float:
    """A value a symbolic float may have, without making torch compile anew for another one."""
    return float(symbol.node.hint) if symbol.node.has_hint() else 1.0


def _dtype_of(tensor: Tensor) -> np.dtype:
    return as_dtype(str(tensor.dtype).removeprefix("torch.")).numpy


def _assembled(returned: object, inputs: Sequence[object], outputs: Sequence[object]) -> object:
    """What the kernel returns, of the tensors of an operator."""
    tensors = [*inputs, *outputs]

    def leaf(value: object, _: str) -> object:
        return viewed(tensors[value.array], value) if isinstance(value, Result) else value

    return map_leaves(returned, leaf, records=False)


def _listed(outputs: object) -> list[object]:
    return list(outputs) if isinstance(outputs, (tuple, list)) else [] if outputs is None else [outputs]


def _packed(outputs: Sequence[object]) -> object:
    """Outputs as torch has them from an operator: one is no tuple, none is None."""
    return tuple(outputs) if len(outputs) > 1 else outputs[0] if outputs else None


class Operator:
    """The operator for calls of a kernel that differ in tensors and floats alone.

    Attributes:
        overload: what torch calls.
    """

    def __init__(self, kernel: Kernel[...], taken: Call, found: Outline, name: str) -> None:
        torch = sys.modules["torch"]
        self._kernel, self._call, self._outline = kernel, taken.of((), ()), found
        self._tensors, self._floats = len(taken.tensors), len(taken.floats)
        self._library = torch.library.Library(_NAMESPACE, "FRAGMENT")
        self._library.define(f"{name}{self._schema()}", tags=(torch.Tag.pt2_compliant_tag,))
        self._library.impl(name, self._run, "CPU")
        qualified = f"{_NAMESPACE}::{name}"
        torch.library.register_fake(qualified, self._fake, lib=self._library)
        torch.library.register_vmap(qualified, self._map, lib=self._library)
        if kernel.gradient is not None and not found.written:
            torch.library.register_autograd(qualified, self._backward, setup_context=self._save, lib=self._library)
        self.overload = getattr(getattr(torch.ops, _NAMESPACE), name).default

    def _schema(self) -> str:
        written = self._outline.written
        operands = [f"Tensor({f'a{i}!'}) x{i}" if i in written else f"Tensor x{i}" for i in range(self._tensors)]
        operands += [f"float s{i}" for i in range(self._floats)]
        return f"({', '.join(operands)}) -> ({', '.join(['Tensor'] * len(self._outline.outputs))})"

    def _at(self, operands: Sequence[Foreign]) -> Call:
        return self._call.of(operands[: self._tensors], operands[self._tensors:])

    def _run(self, *operands: object) -> object:
        """The operator on CPU tensors."""
        args, kwargs = self._at(operands).arguments()
        outputs = self._kernel.outputs(*args, **kwargs)
        if len(outputs) != len(self._outline.outputs):
            problem = f"has {len(outputs)} new results, others"
            raise OperatorChanged(kernel=self._kernel.__name__, problem=problem)
        return _packed(outputs)

    def _fake(self, *operands: Foreign) -> object:
        """The operator on tensors without memory."""
        torch = sys.modules["torch"]
        found = _outline(self._kernel, self._at(operands))
        if len(found.outputs) != len(self._outline.outputs) or found.written != self._outline.written:
            raise OperatorChanged(kernel=self._kernel.__name__, problem="writes or returns other tensors")
        device = operands[0].device if self._tensors else "cpu"
        return _packed([
            torch.empty(shape, dtype=getattr(torch, dtype), device=device) for shape, dtype in found.outputs
        ])

    def _map(self, info: Foreign, dims: tuple[object, ...], *operands: Foreign) -> object:
        """The operator for each element of a batch, one after the other.

        Raises:
            WrittenInMap: all elements would write the same tensor.
        """
        torch = sys.modules["torch"]
        for i in self._outline.written:
            if dims[i] is None:
                raise WrittenInMap(kernel=self._kernel.__name__, name=self._call.names[i])
        results = []
        for element in range(info.batch_size):
            parts = [x if d is None else x.select(d, element) for x, d in zip(operands, dims, strict=True)]
            whole = [p.contiguous() if d is not None else p for p, d in zip(parts, dims, strict=True)]
            results.append(_listed(self.overload(*whole)))
            for i in self._outline.written:
                if whole[i] is not parts[i]:
                    parts[i].copy_(whole[i])
        stacked = [torch.stack(column) for column in zip(*results, strict=True)]
        return _packed(stacked), _packed([0] * len(stacked))

    def _save(self, ctx: object, inputs: tuple[object, ...], output: object) -> None:
        """What the gradient keeps of a call, as the user's `setup_context` says."""
        gradient = self._kernel.gradient
        if gradient is None or gradient.setup_context is None:
            return
        taken = self._at(inputs)
        returned = _assembled(self._outline.returned, taken.tensors, _listed(output))
        gradient.setup_context(ctx, self._by_parameter(taken.arguments()), returned)

    def _backward(self, ctx: object, *gradients: object) -> tuple[object, ...]:
        """The gradients of all operands, from those the user's `backward` has for the parameters.

        Raises:
            InvalidGradient: there is not one for each parameter.
        """
        gradient = self._kernel.gradient
        assert gradient is not None
        found = gradient.backward(ctx, *gradients)
        values = found if isinstance(found, tuple) else (found,)
        parameters = self._by_parameter(self._call.template)
        if len(values) != len(parameters):
            raise InvalidGradient(kernel=self._kernel.__name__, found=len(values), wanted=len(parameters))
        operands: list[object] = [None] * (self._tensors + self._floats)
        for template, value in zip(parameters, values, strict=True):
            self._spread(template, value, operands)
        return tuple(operands)

    def _spread(self, template: object, value: Foreign, operands: list[Foreign]) -> None:
        """Put gradients, nested as the argument is, where their operands are."""
        if value is None:
            return
        if isinstance(template, Place):
            if not template.floats:
                operands[template.number] = value
        elif isinstance(template, dict):
            for name, part in template.items():
                self._spread(part, value.get(name), operands)
        elif isinstance(template, (tuple, list)):
            for part, one in zip(template, value, strict=True):
                self._spread(part, one, operands)

    def _by_parameter(self, arguments: tuple[Args, Kwargs]) -> tuple[object, ...]:
        """Arguments of the kernel in the order of its parameters."""
        args, kwargs = arguments
        bound = self._kernel.signature.bind(*args, **kwargs)
        bound.apply_defaults()
        return tuple(bound.arguments.values())


_operators: WeakKeyDictionary[Kernel[...], dict[Hashable, Operator]] = WeakKeyDictionary()


def _operator(kernel: Kernel[...], taken: Call, does: Outline) -> Operator:
    """The operator for such calls of a kernel; registered when there is none yet."""
    own = _operators.setdefault(kernel, {})
    key = taken.shape, does.written, len(does.outputs), kernel.gradient
    found = own.get(key)
    if found is None:
        found = own[key] = Operator(kernel, taken, does, _unused_name(kernel))
    return found


_names: set[str] = set()


def _unused_name(kernel: Kernel[...]) -> str:
    """A name torch takes, the same in every process that registers the same kernels in the same order.

    Torch writes it in the body of a class, where a name that begins with two underscores would be another one.
    """
    base = re.sub(r"\W+", "_", f"{kernel.__module__}_{kernel.__qualname__}".replace("<locals>", "")).lstrip("_")
    name = next(n for n in (base, *(f"{base}_{i}" for i in range(1, len(_names) + 2))) if n not in _names)
    _names.add(name)
    return name


def _allow_in_graphs() -> None:
    """Let torch.compile take calls of kernels into its graphs."""
    sys.modules["torch._dynamo"].allow_in_graph(_node)


delegation.graphs = delegation.Graphs(compiling, call_in_graph)
delegation.delegates.append(delegation.Delegate(wanted, call))
once_imported("torch._dynamo", _allow_in_graphs)
