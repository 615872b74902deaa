"""Names of the public API: ours against a stored list of those documented, and the list against stubs.

The list (names.toml) has, for each module and for the classes kernels use, parameters with their defaults as written,
`...` for one that is not published; "class" and "value" for names that are not called. Names and signatures are facts:
they are read from stubs and pages, and nothing else of these is kept.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

LIST = Path(__file__).with_name("names.toml")
MODULES = {"": "nkilite", "collectives": "nkilite.collectives", "compiler": "nkilite.compiler", "isa": "nkilite.isa",
           "language": "nkilite.language"}
MISSING = "missing"

Names = dict[str, str]  # "isa.memset" to its parameters


class Difference(NamedTuple):
    """A name that is not the same here: what is documented, and what there is instead."""

    name: str
    documented: str
    found: str

    def __str__(self) -> str:
        return f"{self.name}\n  documented: {self.documented or '(no parameters)'}\n  found:      {self.found}"


class Stored(NamedTuple):
    """The stored list.

    Attributes:
        version: the release of NKI.
        names: what is documented.
        differences: why some names are not the same here.
    """

    version: str
    names: Names
    differences: dict[str, str]


def stored(path: Path = LIST) -> Stored:
    found: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    names = {
        f"{module}.{name}" if module != "nki" else name: text
        for module, listed in found["names"].items() for name, text in listed.items()
    }
    return Stored(found["version"], names, found["differences"])


def differences(listed: Stored) -> list[Difference]:
    """What is not as documented and not explained, and explanations of what is as documented."""
    found = [
        Difference(name, text, ours) for name, text in listed.names.items()
        if not _agree(text, ours := describe(name))
    ]
    different = {difference.name for difference in found}
    unexplained = [d for d in found if d.name not in listed.differences]
    needless = [
        Difference(name, "the same", f"an explanation: {why}") for name, why in listed.differences.items()
        if name not in different
    ]
    return unexplained + needless


def describe(name: str) -> str:
    """What a name is here, in the form of the list."""
    module, _, path = name.rpartition(".") if "." not in name else name.partition(".")
    if module and module not in MODULES:
        module, path = "", name
    found: Any = importlib.import_module(MODULES[module])
    try:
        for part in path.split("."):
            found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    except (AttributeError, ImportError):
        return MISSING
    if inspect.isclass(found):
        return "class"
    if isinstance(found, (staticmethod, classmethod)):
        found = found.__func__
    if isinstance(found, property) or not callable(found) or not inspect.isroutine(found):
        return "value"
    parameters = [p for p in inspect.signature(found).parameters.values() if p.name != "self"]
    return " ".join(_shown(p) for p in parameters)


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.default is inspect.Parameter.empty:
        stars = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
        return stars.get(parameter.kind, "") + parameter.name
    default = parameter.default
    if isinstance(default, Enum):
        text = f"{type(default).__name__}.{default.name}"
    else:
        text = getattr(default, "__name__", None) or repr(default).replace(" ", "")
    return f"{parameter.name}={text}"


def _agree(documented: str, found: str) -> bool:
    """Whether the documented parameters come first, in order and with these defaults; more may follow with defaults."""
    if documented in ("class", "value") or MISSING in (documented, found):
        return documented == found
    wanted, given = documented.split(), [p for p in found.split() if not p.startswith("**")]
    rest = given[len(wanted):]
    return len(given) >= len(wanted) and all(map(_same, wanted, given)) and all("=" in p or p[0] == "*" for p in rest)


def _same(documented: str, found: str) -> bool:
    name, _, default = documented.partition("=")
    ours, _, our_default = found.partition("=")
    if name != ours or bool(default) != bool(our_default):
        return False
    same = default.rsplit(".", 1)[-1] == our_default.rsplit(".", 1)[-1]
    return same or default == "..." or _number(default, our_default)


def _number(one: str, other: str) -> bool:
    """Whether two defaults are one number, which may be written as 0 or 0.0."""
    try:
        return float(one) == float(other)
    except ValueError:
        return False


# --- stubs ------------------------------------------------------------------------------------------------------------


def read_stubs(folder: Path) -> Names:
    """The public names of a folder of stubs: of nki/__init__.py, nki/isa/__init__.py and so on."""
    found: Names = {}
    for module in MODULES:
        path = folder / "nki" / module / "__init__.py"
        if path.exists():
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found.update({f"{module}.{n}" if module else n: text for n, text in _names(tree.body)})
    return found


def _names(body: list[ast.stmt], inside: str = "") -> Iterator[tuple[str, str]]:
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            value = any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)
            yield inside + node.name, "value" if value else _parameters(node.args)
        elif isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield inside + node.name, "class"
            yield from _names(node.body, f"{inside}{node.name}.")
        elif isinstance(node, (ast.AnnAssign, ast.Assign)):
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                yield inside + target.id, "value"


def _parameters(arguments: ast.arguments) -> str:
    plain = [*arguments.posonlyargs, *arguments.args]
    defaults = [None] * (len(plain) - len(arguments.defaults)) + list(arguments.defaults)
    pairs = [*zip(plain, defaults, strict=True), *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return " ".join(
        a.arg if default is None else f"{a.arg}={ast.unparse(default).replace(' ', '')}"
        for a, default in pairs if a.arg != "self"
    )


def changes(listed: Mapping[str, str], stubs: Mapping[str, str]) -> list[Difference]:
    """Where stubs say something else than the list."""
    return [
        Difference(name, listed.get(name, MISSING), text)
        for name, text in stubs.items() if listed.get(name) != text
    ]


def main(
    stubs: Annotated[
        Path | None,
        typer.Option(help="A folder with nki/__init__.py, nki/isa/__init__.py, ...: compare the list with it, too.",
                     exists=True),
    ] = None,
) -> None:
    """Compare the names, parameters and defaults of nkilite with those documented."""
    listed = stored()
    found = differences(listed)
    typer.echo(f"{len(listed.names)} names of NKI {listed.version}: {len(found)} differ, "
               f"{len(listed.differences)} more are explained in {LIST.name}")
    for difference in found:
        typer.echo(difference)
    if stubs is not None:
        changed = changes(listed.names, read_stubs(stubs))
        typer.echo(f"{len(changed)} names of the stubs are other ones in the list")
        for difference in changed:
            typer.echo(f"{difference.name}\n  list:  {difference.documented}\n  stubs: {difference.found}")
    raise typer.Exit(1 if found else 0)
