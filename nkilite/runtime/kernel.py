"""`@nki.jit` and `nki.simulate`: what happens when a kernel is called."""

from __future__ import annotations

import copy
import functools
import inspect
import itertools
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, NamedTuple, ParamSpec, overload
from weakref import WeakValueDictionary

import numpy as np

from nkilite import knobs
from nkilite.dimensions import shapes_of
from nkilite.dtypes import as_dtype
from nkilite.errors import InvalidOperand, NkiError, describe
from nkilite.host.cpu import host
from nkilite.ir.digest import digest
from nkilite.ir.program import Program
from nkilite.ir.rank import current
from nkilite.location import Location, defined_at, here
from nkilite.machine.target import get_target
from nkilite.native.compile import Compilation
from nkilite.native.cores import Cores
from nkilite.native.executable import Executable
from nkilite.native.tiers import Hasty
from nkilite.notebook import preformatted
from nkilite.notices import GridIgnored, Notice, RetraceWarning, give
from nkilite.passes.pipeline import run_pipeline
from nkilite.runtime import delegation
from nkilite.runtime.arguments import to_framework
from nkilite.runtime.binding import Arguments, bind, given
from nkilite.runtime.configs import Configs
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.dynamic import cut
from nkilite.runtime.functions import found_in, reference, signature_of, take_name
from nkilite.runtime.grid import as_grid, cores_of
from nkilite.runtime.guards import Guards
from nkilite.runtime.ignored import warn_of_ignored
from nkilite.runtime.launch import Calls
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.options import check_options, require_none
from nkilite.runtime.portable import Portable, portable
from nkilite.runtime.reach import Unproven
from nkilite.runtime.schedule import Schedule, as_schedule
from nkilite.runtime.settings import FROM_ENVIRONMENT, OPTIONS, Rounder, Settings, take_settings
from nkilite.runtime.sized_launch import SizedCalls
from nkilite.runtime.specialization import Launcher, Specialization, launcher_of, ticks
from nkilite.runtime.tracebacks import presented
from nkilite.runtime.tracing import simulate as run_simulated
from nkilite.runtime.tracing import simulated_outputs, trace
from nkilite.trace import active
from nkilite.trace.tensor import NkiTensor
from nkilite.trace.watching import Watch

P = ParamSpec("P")  # the parameters of the function of a kernel

_count = itertools.count()
numbered: WeakValueDictionary[int, Kernel[...]] = WeakValueDictionary()  # for those that can hold a number only
# What a kernel keeps for itself; `tuning` is a tuner's.
_OWN = {
    "_calls", "_declared", "_executables", "_explained", "_on_cores", "_signature", "_specializations", "_takes_out",
    "gradient", "number", "rounder", "tuning", "watch",
}


class Gradient(NamedTuple):
    """What `register_autograd` was given."""

    backward: Callable[..., object]
    setup_context: Callable[..., object] | None


class Kernel(Generic[P]):
    """A function that runs on a (modelled) NeuronCore.

    Called with arrays it is traced, compiled to native code for this CPU and run; called inside another kernel it is
    inlined. Specializations are kept by argument shapes, dtypes and compile-time values, the target and the CPU level,
    and used again while nothing changes that their trace could see (nkilite/runtime/reach.py).

    A call takes `out=`, too, unless the function has a parameter of that name (or `**options`): an array, or arrays
    nested as the kernel returns them, that receive the results and are returned.
    """

    __name__: str
    __qualname__: str
    grid: tuple[int, ...] = ()  # of instances, in Beta 1

    def __init__(
        self, function: Callable[P, object], lnc: int | None = None, simulated: bool = False,
        settings: Settings = FROM_ENVIRONMENT,
    ) -> None:
        self.lnc = lnc
        self.simulated = simulated
        self.settings = settings
        self.rounder = Rounder(settings)
        self.watch: Watch | None = None  # told of every instruction, when simulated
        self.function = function
        self._read_signature()
        take_name(self, function)
        self.schedule: Schedule = ()
        self._on_cores: dict[int, Kernel[P]] = {}
        self.gradient: Gradient | None = None
        self.number = next(_count)
        numbered[self.number] = self
        self._specializations: dict[object, Specialization] = {}
        self._executables: dict[str, Executable | Cores | Hasty] = {}
        self._explained = False  # whether it was said why this kernel is traced at every launch

    @property
    def func(self) -> Callable[P, object]:
        """The function, as public kernels that call it without a launch of its own name it."""
        return self.function

    def with_schedule(self, edges: Iterable[tuple[str, str | Sequence[str]]]) -> Kernel[P]:
        """This kernel with dependencies between named instructions.

        Args:
            edges: (name, name or names of the instructions it waits for).

        They have no effect on results; `nkilite.profile` honours them. Source: public page "How to Use the NKI
        Scheduling APIs".

        Raises:
            InvalidSchedule: an entry is no such pair; when the kernel is traced, a name is unknown or an instruction
                would wait for a later one.
        """
        scheduled = Kernel(self.function, self.lnc, self.simulated, self.settings)
        scheduled.schedule = as_schedule(edges, self.__name__)
        return scheduled

    @property
    def signature(self) -> inspect.Signature:
        """That of the function, as it is now: defaults may be set anew, and functions be given other code."""
        if self._declared != _declaration(self.function):
            self._read_signature()
        return self._signature

    def with_settings(self, settings: Settings) -> Kernel[P]:
        """This kernel with other settings."""
        found = Kernel(self.function, self.lnc, self.simulated, settings)
        found.schedule = self.schedule
        return found

    def _read_signature(self) -> None:
        self._declared = _declaration(self.function)
        self._signature = signature_of(self.function, "nki.simulate" if self.simulated else "nki.jit")
        parameters = self._signature.parameters
        kinds = {p.kind for p in parameters.values()}
        self._takes_out = "out" not in parameters and inspect.Parameter.VAR_KEYWORD not in kinds
        shapes = self.settings.dynamic_shapes
        self._calls = (
            SizedCalls(self, self._signature, self._takes_out, shapes) if shapes
            else Calls(self, self._signature, self._takes_out)
        )

    def reached(self, guards: Guards) -> tuple[object, ...]:
        """What other kernels see of this one: its function, and what was set on it (nkilite/runtime/reach.py)."""

        def names() -> list[str]:
            return [name for name in vars(self) if name not in _OWN and not name.startswith("__")]

        guards.attributes(self, *names())
        guards.equal(names)
        return tuple(getattr(self, name) for name in names())

    @property
    def __signature__(self) -> inspect.Signature:
        return self.signature

    def __repr__(self) -> str:
        return f"<nki kernel {self.__qualname__}>"

    def _repr_html_(self) -> str:
        where = self.location
        heading = f"nki kernel {self.__qualname__}{self.signature}\n{where}"
        return preformatted(heading + (f"\n\n{inspect.getdoc(self.function)}" if self.function.__doc__ else ""))

    @property
    def launched_name(self) -> str:
        """Its qualified name with the cores it is launched on: ``matmul[2]``."""
        return self.__qualname__ if self.lnc in (None, 1) else f"{self.__qualname__}[{self.lnc}]"

    @property
    def managed(self) -> bool:
        """Whether the vendor's compiler would schedule what it does, as in Beta 1, for profiles."""
        return False

    @property
    def placed(self) -> bool:
        """Whether the vendor's compiler places tiles, and spills them if they do not fit, as in Beta 1."""
        return False

    @property
    def renames(self) -> bool:
        """Whether the vendor's compiler gives every content of a tile memory of its own, as in Beta 1, for profiles."""
        return False

    def __copy__(self) -> Kernel[P]:
        return self  # as functions are

    def __deepcopy__(self, memo: dict[int, object]) -> Kernel[...]:
        function = copy.deepcopy(self.function, memo)  # another one for a method of an object that is copied
        return self if function is self.function else _derived(function, 0, *self._options)

    def __reduce__(self) -> str | tuple[object, ...]:
        return reference(self, _derived, self._options)

    @property
    def _options(self) -> tuple[int | None, bool, Settings, Schedule]:
        return self.lnc, self.simulated, self.settings, self.schedule

    @property
    def location(self) -> Location:
        """Where the kernel is defined."""
        return defined_at(self.function)

    def __getitem__(self, lnc: object) -> Kernel[P]:
        """`kernel[lnc]`: the kernel on a logical NeuronCore of that many physical cores.

        Raises:
            InvalidGrid: no chip has such a one.
        """
        cores = as_grid(lnc, self.__name__)
        found = self._on_cores.get(cores)
        if found is None:
            found = self._on_cores[cores] = Kernel(self.function, cores, self.simulated, self.settings)
            found.schedule, found.watch = self.schedule, self.watch
        found.gradient = self.gradient
        if "tuning" in vars(self):
            found.tuning = self.tuning  # type: ignore[attr-defined]
        return found

    def __get__(self, instance: object, owner: type | None = None) -> UserValue:
        return self if instance is None else functools.partial(self, instance)

    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> UserValue: ...

    @overload
    def __call__(self, *args: object, out: object, **kwargs: object) -> UserValue: ...

    def __call__(self, *args: object, **kwargs: object) -> UserValue:
        __tracebackhide__ = True
        if delegation.graphs.compiling():
            return delegation.graphs.call(self, args, kwargs)
        if active.builder_or_none() is not None:
            return self._inline(args, kwargs)
        try:
            key = None if self.simulated else self._calls.key(args, kwargs)
            launch = None if key is None else self._calls.find(key)
            if launch is not None:
                accepted, result = launch(args, kwargs)
                if accepted:
                    return result
            return self._run(args, kwargs, key)
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def _run(self, args: Args, kwargs: Kwargs, key: tuple[object, ...] | None) -> object:
        """A launch that does not look like an earlier one; `key` is what later ones like it look like."""
        delegate = delegation.delegate_for(args, kwargs)
        if delegate is not None:
            return delegate.call(self, args, kwargs)
        warn_of_ignored()
        out = kwargs.get("out") if self._takes_out else None
        named = {k: v for k, v in kwargs.items() if k != "out"} if self._takes_out else kwargs
        arguments = bind(self, args, named)
        self.rounder.launched()
        if self.simulated or knobs.simulator():
            return run_simulated(self, arguments, out)
        specialization = self._specialize(arguments)
        result = specialization.run(arguments, out)
        self._warm(key, args, kwargs, specialization)
        return result

    def outputs(self, *args: P.args, **kwargs: P.kwargs) -> list[UserValue]:
        """Run once; the new arrays the kernel makes, in the order in which it makes outputs, whole."""
        key = None if self.simulated else self._calls.key(args, kwargs)
        launch = None if key is None else self._calls.find(key)
        known: list[UserValue] | None = None if launch is None else launch.outputs(args, kwargs)
        if known is not None:
            return known
        warn_of_ignored()
        arguments = bind(self, args, kwargs)
        self.rounder.launched()
        if self.simulated or knobs.simulator():
            return simulated_outputs(self, arguments)
        specialization = self._specialize(arguments)
        self._warm(key, args, kwargs, specialization)
        arrays = specialization.place(arguments)
        specialization.executable.run(arrays)
        made = zip(
            arrays[len(arguments.arrays):], specialization.executable.image.outputs, specialization.dims, strict=True
        )
        whole = [(np.ascontiguousarray(cut(array, dims, arguments.size_list)), spec) for array, spec, dims in made]
        return [to_framework(array, as_dtype(spec.dtype), arguments.framework) for array, spec in whole]

    def proven(self, *args: P.args, **kwargs: P.kwargs) -> Specialization | None:
        """What a launch with these arguments would run, if an earlier one proves that without a trace.

        Nothing where dimensions are dynamic: then it does not tell the shapes of results.
        """
        if self.settings.dynamic_shapes:
            return None
        key = None if self.simulated else self._calls.key(args, kwargs)
        launch = None if key is None else self._calls.find(key)
        return None if launch is None else launch.specialization

    def _warm(
        self, key: tuple[object, ...] | None, args: Args, kwargs: Kwargs, specialization: Specialization
    ) -> None:
        """Let later launches that look alike run a specialization, where it can be proven that they would."""
        if key is not None and not specialization.merged and not specialization.reach.unproven:
            self._calls.add(key, args, kwargs, specialization)

    def as_simulated(self, settings: Settings) -> Kernel[P]:
        """The kernel executed by NumPy reference semantics; see `nki.simulate`."""
        return Kernel(self.function, self.lnc, True, settings)

    def register_autograd(
        self, backward: Callable[..., object], *, setup_context: Callable[..., object] | None = None
    ) -> None:
        """Give the kernel a gradient in torch, as `torch.library.register_autograd` does for operators.

        Args:
            backward: called with a context and a gradient for every tensor the kernel makes; returns a gradient for
                every parameter of the kernel in order, None where there is none, nested as the argument is.
            setup_context: called with the context, the arguments in the order of parameters, and what the kernel
                returned, to save what `backward` needs.
        """
        self.gradient = Gradient(backward, setup_context)

    def call(self, arguments: Arguments, tensors: dict[int, NkiTensor]) -> UserValue:
        """Run the function on the tensors of a launch, by id of their argument; what it returned."""
        return arguments.call(self.function, tensors)

    def _inline(self, args: Args, kwargs: Kwargs) -> object:
        """Run as a part of the kernel that is being traced."""
        builder = active.builder()
        outer, cores = builder.configs, builder.core.cores
        if self.lnc not in (None, cores):
            where = here()
            message = f"{self.__name__}[{self.lnc}] is called within a kernel on {cores} core(s), and runs on as many"
            give(Notice(message, GridIgnored, where.file, where.line))
        if isinstance(outer, Configs):
            outer.require_agreement(self.settings.configs, self.__name__)
        try:
            return self.function(*args, **kwargs)
        except TypeError as error:
            trace = error.__traceback__
            if trace is not None and trace.tb_next is None and not isinstance(error, NkiError):
                bind(self, args, kwargs)  # explains arguments that do not fit
            raise

    def trace(self, *args: P.args, **kwargs: P.kwargs) -> Program:
        """The kernel's IR for these arguments, before any pass; of several cores, that of the first."""
        return self.programs(*args, **kwargs)[0]

    def programs(self, *args: P.args, **kwargs: P.kwargs) -> list[Program]:
        """The kernel's IR for these arguments on every core of the launch, before any pass."""
        try:
            return trace(self, bind(self, args, kwargs)).programs
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def check(self, *args: P.args, **kwargs: P.kwargs) -> Program:
        """Trace for these arguments and run every pass, so that all mistakes show, but compile nothing."""
        try:
            checked = [run_pipeline(program) for program in trace(self, bind(self, args, kwargs)).programs]
            return checked[0]
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def launcher(self, *args: P.args, **kwargs: P.kwargs) -> Launcher:
        """Compile for these arguments and bind the result to them, to be launched and timed repeatedly."""
        try:
            arguments = bind(self, args, kwargs)
            return launcher_of(self._specialize(arguments), arguments)
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def portable(self, *args: P.args, **kwargs: P.kwargs) -> Portable:
        """Trace for these arguments and lower to data that a process without the function can compile and run."""
        try:
            return portable(self, bind(self, args, kwargs))
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def arguments(self, *args: P.args, **kwargs: P.kwargs) -> inspect.BoundArguments:
        """The arguments of a call by name, defaults included.

        Raises:
            InvalidCall: they do not fit the signature.
        """
        bound = given(self, args, kwargs)
        bound.apply_defaults()
        return bound

    def memory(self, *args: P.args, **kwargs: P.kwargs) -> list[np.ndarray]:
        """The arrays of a call, in order, as contiguous NumPy arrays; those of other libraries are not copied."""
        return [array.numpy for array in bind(self, args, kwargs).arrays]

    def sizes(self, *args: P.args, **kwargs: P.kwargs) -> tuple[int, list[int]]:
        """The sizes of dynamic dimensions in a call, and their place among the inputs of its programs."""
        arguments = bind(self, args, kwargs)
        return len(arguments.given), arguments.size_list

    def settle(self, specialization: Specialization, good: Executable | Cores) -> None:
        """A specialization that was compiled hastily has a better executable: launches are to know it directly."""
        if specialization.program in self._executables:
            self._executables[specialization.program] = good
        self._calls.drop(specialization)

    def forget(self) -> None:
        """Drop every compiled specialization; the next launch compiles anew, and rounds as the first one."""
        self.rounder.restart()
        self._specializations.clear()
        self._executables.clear()
        self._calls.clear()

    def compile(self, *args: P.args, **kwargs: P.kwargs) -> Compilation:
        """Trace and compile for these arguments without running; the same object later calls use."""
        try:
            return self._specialize(bind(self, args, kwargs)).compilation
        except Exception as error:
            shown = presented(error, self.__name__)
            raise shown from shown.__cause__

    def _specialize(self, arguments: Arguments) -> Specialization:
        with current().compiling:  # ranks of one process compile once
            return self._specialized(arguments)

    def _specialized(self, arguments: Arguments) -> Specialization:
        target = get_target(knobs.target())
        key = (target.digest, host().level, len(cores_of(self, target)), knobs.races(), arguments.key)
        found = self._specializations.get(key)
        if found is not None and found.reach.unchanged():
            found.used = next(ticks)
            return found
        new = Specialization(self, arguments, self._executables)
        if found is not None and found.reach.unproven and new.reach.unproven and not self._explained:
            self._explained = True
            _explain(self.__name__, new.reach.unproven)
        self._specializations[key] = new
        if found is not None:
            self._calls.drop(found)
        self._bound()
        return new

    def _bound(self) -> None:
        """Drop what was used least recently beyond NKILITE_SPECIALIZATIONS.

        Raises:
            InvalidSetting: it is no number.
        """
        limit = knobs.specializations()
        for program in list(self._executables)[: -limit]:
            self._executables.pop(program, None)
        kept = self._specializations
        for key, found in sorted(kept.items(), key=lambda item: item[1].used)[: -limit]:
            kept.pop(key, None)
            self._calls.drop(found)


def _explain(kernel: str, unproven: Unproven) -> None:
    """Say why a kernel is traced at every launch."""
    where = unproven.location
    line = f" at {where}" + (f"\n     {where.source}" if where.source else "") if where.line else ""
    give(
        Notice(
            f"kernel {kernel!r} is traced at every launch, for it cannot be told whether what it reads has changed: "
            f"{unproven.what}{line}\n  fix: read plain values: numbers, strings, tuples, dataclasses, attributes of "
            f"modules by name; or pass them as arguments.",
            RetraceWarning, where.file, where.line, once=True,
        )
    )


def _declaration(function: Callable[..., object]) -> tuple[object, ...]:
    """What the signature of a function is made of."""
    plain = inspect.unwrap(function)
    if not isinstance(plain, types.FunctionType):
        return ()
    named = plain.__kwdefaults__ or {}
    values = *(plain.__defaults__ or ()), *named.values()
    return plain.__code__, *named, *map(id, values)


def _derived(
    place: object, steps: int, lnc: int | None, simulated: bool, settings: Settings, schedule: Schedule
) -> Kernel[...]:
    """The kernel that a pickle or a copy describes; see nkilite/runtime/functions.py."""
    kernel = Kernel(found_in(place, steps), lnc, simulated, settings)
    kernel.schedule = schedule
    return kernel


@overload
def jit(fn: Callable[P, object], **options: object) -> Kernel[P]: ...


@overload
def jit(fn: None = None, **options: object) -> Callable[[Callable[P, object]], Kernel[P]]: ...


def jit(fn: Callable[..., object] | None = None, **options: UserValue) -> UserValue:
    """Make a function an NKI kernel; `@nki.jit` or `@nki.jit(...)`.

    Four options are ours. Of three, None, their default, means the environment: `stochastic_rounding` (True or False;
    NEURON_RT_STOCHASTIC_ROUNDING_EN), `rounding_seed` (an int; NEURON_RT_STOCHASTIC_ROUNDING_SEED) and `check_nan`
    ("off", "warn", "error", "warn+inf" or "error+inf"; NKILITE_NAN). The fourth, `dynamic_shapes`, says which
    dimensions of arrays have sizes that a launch decides, by name of the parameter and position of the dimension:
    ``{"x": {0: nki.Dim("n", max=4096)}}``. The kernel is traced once, for the bounds. Options of the vendor's compiler
    (mode, compile_config, ...) are accepted and have no meaning on a CPU.

    Raises:
        UnknownKeyword: no release has had such an option.
        InvalidOperand: a configuration is none; an option of ours has another type.
    """
    if fn is None:
        fn = options.pop("func", None)  # its name until NKI 0.3
    given = fn.settings if isinstance(fn, Kernel) else FROM_ENVIRONMENT
    vendor = dict(options)
    settings = take_settings(vendor, "nki.jit", given)
    if "dynamic_shapes" in vendor:
        settings = settings._replace(dynamic_shapes=shapes_of(vendor.pop("dynamic_shapes")))
    settings = settings._replace(configs=check_options(vendor, given.configs))
    if fn is None:
        return functools.partial(jit, **options)
    if isinstance(fn, Kernel):
        return fn if settings == given else fn.with_settings(settings)
    return Kernel(fn, settings=settings)


def program_digest(kernel: Callable[..., object], *args: object, target: str | None = None, **kwargs: object) -> str:
    """Trace a kernel; a digest of what its program computes, the same in every process.

    Launches with the same digest do the same, whatever the kernel's code and the values it reads. Names and lines do
    not count.

    Args:
        kernel: an `@nki.jit` kernel, or a plain function.
        args, kwargs: its arguments; the values of arrays do not matter.
        target: ``trn1``, ``trn2`` or ``trn3`` (or an alias); by default the environment's.
    """
    with knobs.overridden_target(knobs.target() if target is None else target):
        return digest(*jit(kernel).programs(*args, **kwargs), lines=False)


@overload
def simulate(
    kernel: Kernel[P], *, stochastic_rounding: bool | None = None, rounding_seed: int | None = None,
    check_nan: str | None = None, watch: Watch | None = None,
) -> Kernel[P]: ...


@overload
def simulate(
    kernel: Callable[P, object], *, stochastic_rounding: bool | None = None, rounding_seed: int | None = None,
    check_nan: str | None = None, watch: Watch | None = None,
) -> Kernel[P]: ...


def simulate(kernel: Callable[..., object], *, watch: Watch | None = None, **options: object) -> Kernel[...]:
    """The kernel executed eagerly by NumPy reference semantics, so that print and breakpoint() see values.

    Args:
        kernel: an `@nki.jit` kernel or a plain function.
        watch: called after every instruction with a `nkilite.debugger.Stop`; on several cores, by each in turn.
        options: `stochastic_rounding`, `rounding_seed` and `check_nan`, as of `nki.jit`; by default the kernel's.

    Raises:
        UnknownKeyword, InvalidOperand: there is no such option, or it has another type.
    """
    given = kernel.settings if isinstance(kernel, Kernel) else FROM_ENVIRONMENT
    settings = take_settings(options, "nki.simulate", given)
    require_none("nki.simulate", options, OPTIONS)
    if watch is not None and not callable(watch):
        raise InvalidOperand(
            instruction="nki.simulate", operand="watch", found=describe(watch), expected="a function of a Stop, or None"
        )
    found = kernel.as_simulated(settings) if isinstance(kernel, Kernel) else Kernel(kernel, None, True, settings)
    found.watch = watch
    return found
