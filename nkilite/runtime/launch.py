"""Warm launches: a call that looks like an earlier one goes straight to its compiled kernel.

What a call looks like is cheap to tell: positions and names of arguments, shapes and dtypes of arrays of NumPy and of
libraries such as torch, plain values, settings from the environment. Calls with anything else (containers, records,
functions, arrays of several libraries) are bound and looked up in full (nkilite/runtime/kernel.py), and so is every
call that an entry refuses.
"""

from __future__ import annotations

import inspect
import struct
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Protocol

import numpy as np

from nkilite import knobs
from nkilite.dtypes import as_dtype
from nkilite.native.executable import Executable
from nkilite.native.tiers import Hasty
from nkilite.runtime.configurations import configured, none_registered
from nkilite.runtime.containers import map_leaves
from nkilite.runtime.delegation import Args, Kwargs
from nkilite.runtime.foreign import Library, libraries
from nkilite.runtime.opaque import UserValue
from nkilite.runtime.recycler import maker
from nkilite.runtime.results import Result, collect
from nkilite.runtime.specialization import Specialization, ticks

_PLAIN = frozenset((int, str, bool, bytes, type(None)))
_array = np.ndarray
_float_bits = struct.Struct("<d").pack


class WarmLaunch(Protocol):
    """Runs what an earlier call that looked alike has compiled."""

    specialization: Specialization
    unchanged: Callable[[], bool]

    def __call__(self, args: Args, kwargs: Kwargs) -> tuple[bool, UserValue]: ...

    def outputs(self, args: Args, kwargs: Kwargs) -> list[UserValue] | None: ...


class Calls:
    """The launches of a kernel by what calls look like."""

    VALUES = 2  # where values begin in a key; a float and an array of another library have one item, others two

    def __init__(self, kernel: object, signature: inspect.Signature, takes_out: bool) -> None:
        self._kernel, self._takes_out = kernel, takes_out
        self._names = tuple(signature.parameters)
        kinds = {p.kind for p in signature.parameters.values()}
        self._simple = not kinds & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
        self._launches: dict[Hashable, WarmLaunch] = {}

    def key(self, args: Args, kwargs: Kwargs) -> tuple[object, ...] | None:
        """What a call looks like; None if that takes a closer look."""
        if not self._simple or knobs.target_is_file():
            return None
        # Named values follow the others; how many they are tells calls apart that pass the same values by position.
        key: list[object] = [knobs.launch_settings(), tuple(kwargs)]
        for value in (*args, *kwargs.values()) if kwargs else args:
            kind = type(value)
            if kind is _array:
                key.append(value.dtype)
                key.append(value.shape)
            elif kind in _PLAIN:
                key.append(kind)
                key.append(value)
            elif kind is float:
                key.append(_float_bits(value))  # tells -0.0 from 0.0, and NaNs apart
            else:
                library = libraries.get(kind)
                look = None if library is None else library.look(value)
                if look is None:
                    return None
                key.append(look)
        if not none_registered():
            tuned = configured(self._kernel, self._explicit(args, kwargs))
            key += ((name, type(value), value) for name, value in tuned.items())
        return tuple(key)

    def find(self, key: tuple[object, ...]) -> WarmLaunch | None:
        """The launch of such calls, unless something its trace could see has changed since."""
        try:
            found = self._launches.get(key)
        except TypeError:  # a tuned value that cannot be hashed
            return None
        if found is None or not found.unchanged():
            return None
        found.specialization.used = next(ticks)
        return found

    def add(self, key: tuple[object, ...], args: Args, kwargs: Kwargs, specialization: Specialization) -> None:
        """Let calls like this one run a specialization, if they can be told what its arrays are."""
        explicit = self._explicit(args, kwargs)
        out = kwargs.get("out") if self._takes_out else None
        places = {name: i for i, name in enumerate((*self._names[: len(args)], *kwargs))}
        arrays = {name: type(explicit.get(name)) for name in self._names}
        arrays = {name: kind for name, kind in arrays.items() if kind is _array or kind in libraries}
        picks = [places[name] for name in arrays]
        kinds = {libraries.get(kind) for kind in (*arrays.values(), *([] if out is None else [type(out)]))}
        image, returned = specialization.executable.image, specialization.returned
        direct = isinstance(returned, Result) and returned.strides is None and returned.array == len(image.inputs)
        direct = direct and as_dtype(returned.dtype).kind != "x"  # whose arrays may have another NumPy dtype
        if len(picks) != len(image.inputs) or len(kinds) != 1:
            return
        if out is not None:
            if not direct or len(image.outputs) != 1:
                return
            picks.append(places["out"])
        plain = not kwargs and picks == list(range(len(args)))
        (library,) = kinds
        options = None if plain else picks, out is not None, direct and len(image.outputs) == 1
        if library is None:
            self._launches[key] = Launch(specialization, *options)
        else:
            makers = [m for o in image.outputs if (m := library.maker(o.shape, o.dtype)) is not None]
            if len(makers) == len(image.outputs):
                self._launches[key] = ForeignLaunch(specialization, *options, library, makers)

    def drop(self, specialization: Specialization) -> None:
        """Forget the launches of a specialization."""
        for key, launch in list(self._launches.items()):
            if launch.specialization is specialization:
                self._launches.pop(key, None)

    def clear(self) -> None:
        self._launches.clear()

    def _explicit(self, args: tuple[object, ...], kwargs: Mapping[str, object]) -> dict[str, object]:
        explicit = {**dict(zip(self._names, args, strict=False)), **kwargs}
        if self._takes_out:
            explicit.pop("out", None)
        return explicit


class Launch:
    """Runs a specialization on the values of a call, positional ones first."""

    __slots__ = ("_direct", "_execute", "_given", "_outputs", "_picks", "specialization", "unchanged")

    unchanged: Callable[[], bool]
    _outputs: Sequence[Callable[[], UserValue]]

    def __init__(
        self, specialization: Specialization, picks: Sequence[int] | None, given: bool, direct: bool
    ) -> None:
        """
        Args:
            picks: which values are its arrays, in order; None if the positional ones are.
            given: the last array is where the result goes.
            direct: its one output is what it returns.
        """
        self.specialization, self._picks, self._given, self._direct = specialization, picks, given, direct
        self._execute = specialization.executable.enter
        self._outputs = [maker(o.shape, as_dtype(o.dtype).numpy) for o in specialization.executable.image.outputs]
        self.unchanged = specialization.reach.quick()

    def __call__(self, args: Args, kwargs: Kwargs) -> tuple[bool, UserValue]:
        """Whether the arrays were accepted, and what the kernel returns."""
        arrays: Sequence[UserValue] = args
        if self._picks is not None:
            values = (*args, *kwargs.values())
            arrays = [values[i] for i in self._picks]
        if self._direct:
            if self._given:
                return self._execute(*arrays), arrays[-1]
            out = self._outputs[0]()
            return self._execute(*arrays, out), out
        memory = [*arrays, *(new() for new in self._outputs)]
        if not self._execute(*memory):
            return False, None
        return True, collect(self.specialization.returned, arrays, memory, "numpy")

    def outputs(self, args: Args, kwargs: Kwargs) -> list[object] | None:
        """The new arrays; None if the arrays were not accepted."""
        arrays = self._arrays(args, kwargs)
        made = [new() for new in self._outputs]
        return made if self._accepted([*arrays, *made]) else None

    def _arrays(self, args: Args, kwargs: Kwargs) -> Sequence[object]:
        if self._picks is None:
            return args
        values = (*args, *kwargs.values())
        return [values[i] for i in self._picks]

    def _accepted(self, memory: Sequence[UserValue]) -> bool:
        """Run with inputs and outputs; False, and nothing was run, if some of them take a closer look."""
        return self._execute(*memory)


class ForeignLaunch(Launch):
    """The same for arrays of another library, which are passed to native code by their addresses."""

    __slots__ = ("_at", "_library")

    def __init__(
        self, specialization: Specialization, picks: Sequence[int] | None, given: bool, direct: bool,
        library: Library, makers: Sequence[Callable[[], UserValue]],
    ) -> None:
        """
        Args:
            makers: what makes its outputs.
        """
        super().__init__(specialization, picks, given, direct)
        executable = specialization.executable
        self._library, self._outputs = library, makers
        self._at = executable.enter_at if isinstance(executable, (Executable, Hasty)) and executable.quick else None

    def __call__(self, args: Args, kwargs: Kwargs) -> tuple[bool, UserValue]:
        arrays = self._arrays(args, kwargs)
        memory = arrays if self._given else [*arrays, *[new() for new in self._outputs]]
        if not self._accepted(memory):
            return False, None
        if self._direct:
            return True, memory[-1]
        library = self._library

        def leaf(value: object, _: str) -> object:
            return library.view(memory[value.array], value) if isinstance(value, Result) else value

        return True, map_leaves(self.specialization.returned, leaf, records=False)

    def _accepted(self, memory: Sequence[UserValue]) -> bool:
        if self._at is not None:
            return self._at(*map(self._library.address, memory))
        return self._execute(*map(self._library.memory, memory))
