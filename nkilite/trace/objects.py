"""NKIObject: the base class of configuration objects in kernels.

As in NKI, class attributes are constructor parameters whether annotated or not, in declaration order with
inherited ones first; a parameter without a default is None. `@dataclass` may be added and changes nothing but
what dataclasses add (comparison). Source: "Class Support" in the public NKI language guide.
"""

from __future__ import annotations

import dataclasses
import inspect
from typing import ClassVar, get_origin


class NKIObject:
    """A record. Subclasses declare fields; `__post_init__` runs after construction if they define it."""

    _nki_fields: ClassVar[
        dict[str, object]
    ] = {}  # name -> default value or dataclasses.Field, inherited ones included
    _nki_signature: ClassVar[inspect.Signature] = inspect.Signature()

    def __init_subclass__(cls, **options: object) -> None:
        super().__init_subclass__(**options)
        fields: dict[str, object] = {}
        for base in reversed(cls.__mro__[1:]):
            fields.update(vars(base).get("_nki_fields", {}))
        for name in _declared(cls):
            if name not in vars(cls):
                setattr(cls, name, None)  # so that @dataclass finds a default, too
            fields[name] = vars(cls)[name]
        cls._nki_fields = fields
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        cls._nki_signature = inspect.Signature(
            [inspect.Parameter(name, kind, default=default) for name, default in fields.items()]
        )
        if cls.__init__ is NKIObject.__init__:
            cls.__init__ = NKIObject.__init__  # type: ignore[method-assign]  # an own entry, which @dataclass keeps

    def __init__(self, *args: object, **kwargs: object) -> None:
        given = self._nki_signature.bind(*args, **kwargs).arguments
        for name, default in self._nki_fields.items():
            if name in given:
                object.__setattr__(self, name, given[name])
            elif name not in vars(self):
                object.__setattr__(self, name, _fresh(default))
        self.__post_init__()

    def __post_init__(self) -> None:
        """Called when all fields are set."""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"


def _declared(cls: type) -> list[str]:
    """The fields a class body declares, in order (annotations without a value before the next one with)."""
    annotations = inspect.get_annotations(cls)
    valued = [n for n, v in vars(cls).items() if not n.startswith("_") and _is_field(v)]
    names: list[str] = []
    for name, annotation in annotations.items():
        if _is_class_variable(annotation):
            names.append(name)
            continue
        if name in valued:
            names += [n for n in valued[: valued.index(name)] if n not in names]
        names.append(name)
    names += [n for n in valued if n not in names]
    return [n for n in names if not _is_class_variable(annotations.get(n))]


def _is_field(value: object) -> bool:
    """Whether a class attribute is data rather than a method, property or nested class."""
    return not (hasattr(value, "__get__") or isinstance(value, type))


def _is_class_variable(annotation: object) -> bool:
    if isinstance(annotation, str):
        return annotation.split("[")[0].rpartition(".")[2] == "ClassVar"
    return annotation is ClassVar or get_origin(annotation) is ClassVar


def _fresh(default: object) -> object:
    if not isinstance(default, dataclasses.Field):
        return default
    if default.default_factory is not dataclasses.MISSING:
        return default.default_factory()
    return None if default.default is dataclasses.MISSING else default.default
