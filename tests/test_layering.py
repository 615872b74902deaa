"""The house: imports only point down, and the gallery and the tuner use nothing but the public API."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES_OF_A_FUNCTION = 60  # at most, without its docstring
ANY_OF_1000_LINES = 5  # at most: what `typing.Any` is in, nobody checks

# A package or module may import what stands before it, and its own package.
LAYERS = [
    ["forking", "later", "location", "notices", "once", "plain"],
    ["notebook"],
    ["deprecation", "errors"],
    ["knobs", "suggest"],
    ["compiled", "dimensions", "dtypes"],
    ["rounding"],
    ["machine"],
    ["ir"],
    ["passes", "trace"],
    ["host"],  # what is above knows no CPU
    ["schedule"],
    ["codegen"],
    ["isa"],
    ["collectives", "language", "sparsity"],
    ["native"],
    ["gpsimd"],
    ["runtime"],
    ["frameworks"],
    ["builtin", "compiler", "simulator", "typing", "testing", "profiling", "drawing", "debugger"],
    ["beta1"],
    ["xla_stub"],
    ["compat"],
    ["cli"],
    ["pytest_plugin", "__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# The same for the tuner, module by module: each may import what stands on the lines before its own.
TUNER = [
    ["errors"],
    ["children", "expressions"],
    ["figures"],
    ["space", "outcome"],
    ["context"],
    ["database"],
    ["objective"],
    ["measure.correctness", "measure.timing", "measure.turnstile"],
    ["measure.requests"],
    ["measure.measuring"],
    ["measure.isolation"],
    ["measure.measured"],
    ["explore.pareto"],
    ["explore.offered", "explore.exhaustive"],
    ["explore.several", "explore.samplers", "explore.opening"],
    ["explore.study"],
    ["lookup", "api", "sources"],
    ["triton"],
    ["plots.data"],
    ["plots.page", "plots.images"],
    ["plots"],
    ["shared.addresses"],
    ["shared.tokens"],
    ["shared.storage"],
    ["shared.claims"],
    ["shared.specification"],
    ["shared.worker", "shared.dashboard"],
    ["shared.coordinator"],
    ["cli.present", "cli.joining"],
    ["cli.command"],
    ["__main__"],
]
TUNER_LEVEL = {name: level for level, names in enumerate(TUNER) for name in names}
PUBLIC = {
    "nkilite",
    "nkilite.cli.failure",
    "nkilite.cli.specs", "nkilite.cli.terminal",
    "nkilite.errors",
    "nkilite.isa",
    "nkilite.language", "nkilite.later",
    "nkilite.location", "nkilite.notebook", "nkilite.plain",
    "nkilite.profiling",
    "nkilite.sparsity",
    "nkilite.testing",
    "nkilite.typing",
}


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, absolute dotted name) of everything a file imports, also inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} uses a relative import"
            found += [(node.lineno, f"{node.module}.{alias.name}") for alias in node.names]
    return found


def modules() -> list[Path]:
    return [p for p in sorted((ROOT / "nkilite").rglob("*.py")) if p.parent != ROOT / "nkilite" or p.stem != "__init__"]


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(ROOT / "nkilite").parts[0].removesuffix(".py")
    assert own in LEVEL, f"{own} has no place among the layers"
    for line, name in imports(path):
        parts = name.split(".")
        if parts[0] in ("kernels", "autotune", "benchmarks", "tests", "conformance"):
            pytest.fail(f"{path}:{line} imports {name}")
        if parts[0] != "nkilite" or len(parts) < 2 or parts[1] not in LEVEL:
            continue
        allowed = LEVEL[parts[1]] < LEVEL[own] or parts[1] == own
        assert allowed, f"{path}:{line}: {own} imports {name}, which is not below it"


def tuner_modules() -> dict[str, Path]:
    """By name within the package; a package is its `__init__`."""
    found = {}
    for path in sorted((ROOT / "autotune").rglob("*.py")):
        parts = path.relative_to(ROOT / "autotune").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def test_imports_of_the_tuner_point_down() -> None:
    found = tuner_modules()
    tables_of_contents = {name for name in found if name and any(other.startswith(f"{name}.") for other in TUNER_LEVEL)}
    assert found.keys() - {""} - (tables_of_contents - TUNER_LEVEL.keys()) == TUNER_LEVEL.keys()
    for own, path in found.items():
        for line, name in imports(path):
            if name.split(".")[0] != "autotune" or not own:  # the package itself is its public names
                continue
            inside = name.partition(".")[2]
            module = next((m for m in (inside, inside.rpartition(".")[0]) if m in TUNER_LEVEL), None)
            assert module is not None, f"{path}:{line} imports {name}, which is no module of the tuner"
            assert own in TUNER_LEVEL, f"{path}:{line} imports, in a package that is a table of contents"
            below = TUNER_LEVEL[module] < TUNER_LEVEL[own] or module.startswith(f"{own}.")
            assert below, f"{path}:{line}: {own} imports {name}, which is not below it"


@pytest.mark.parametrize("package", ["kernels", "autotune"])
def test_outer_packages_use_the_public_api(package: str) -> None:
    for path in sorted((ROOT / package).rglob("*.py")):
        for line, name in imports(path):
            if name.split(".")[0] == "nkilite":
                module = name if name in PUBLIC else name.rpartition(".")[0]
                assert module in PUBLIC, f"{path}:{line} imports {name}"


def test_no_file_is_a_dumping_ground() -> None:
    long = [
        f"{path.relative_to(ROOT)}: {count} lines"
        for path in modules()
        if (count := len(path.read_text().splitlines())) > 700
    ]
    assert not long


@pytest.mark.parametrize("package", ["nkilite", "autotune", "kernels", "conformance", "benchmarks"])
def test_no_function_is_long(package: str) -> None:
    long = []
    for path in sorted((ROOT / package).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[0]
                documented = ast.get_docstring(node, clean=False) is not None
                described = (first.end_lineno or 0) - first.lineno + 1 if documented else 0
                lines = (node.end_lineno or 0) - node.lineno + 1 - described
                if lines > LINES_OF_A_FUNCTION:
                    long.append(f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} has {lines} lines")
    assert not long


def test_files_of_tests_have_names_of_their_own() -> None:
    """Two of one name, in folders that are no packages, keep pytest from collecting any."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(names) == sorted(set(names))


def test_few_values_are_of_any_type() -> None:
    """`Any`, and other names for it, wherever they are imported or used."""
    trees = {".".join(p.relative_to(ROOT).with_suffix("").parts): ast.parse(p.read_text()) for p in modules()}
    names = {("typing", "Any")}
    for module, tree in trees.items():
        names |= {(module, name) for name in _other_names(tree)}
    found = sum(_uses(tree, module, names) for module, tree in trees.items())
    lines = sum(path.read_text().count("\n") for path in modules())
    assert found <= ANY_OF_1000_LINES * lines / 1000, f"{1000 * found / lines:.1f} times Any in 1000 lines"


def _other_names(tree: ast.Module) -> list[str]:
    """The names of type aliases that are `Any`."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Name)]
    return [ast.unparse(node.target) for node in found if ast.unparse(node.value or node) == "Any"]


def _uses(tree: ast.Module, module: str, names: set[tuple[str, str]]) -> int:
    """How often a module has one of these names, its imports of them included."""
    imported = [
        alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)
        for alias in node.names if (node.module, alias.name) in names
    ]
    own = {*imported, *(name for place, name in names if place == module)}
    return len(imported) + sum(isinstance(node, ast.Name) and node.id in own for node in ast.walk(tree))
