"""aws-neuron-sdk: example kernels, code blocks of the tutorial and guides, docstring examples of the API."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..blocks import Analysis, Kind, analyse, call_text, continued, kernel_text, module_text
from ..case import TARGET_MODES, Case, Launch, Mode
from ..extract import CodeBlock, blocks_of_docstrings, blocks_of_page
from ..sources import GeneratedSource
from . import api_examples, framework_guide, guide_examples
from . import references as ref
from .files import file_cases
from .mx import mx_variants
from .programs import beta_1_cases, pytest_cases
from .sdk_examples import example_cases

SUITE = "aws-neuron-sdk"
PAGES = (
    "get-started/nki-language-guide.rst",
    "get-started/quickstart-implement-run-kernel.rst",
    "deep-dives/nki-aps.rst",
    "deep-dives/nki-dynamic-loops.rst",
)
MICROSCALING = "deep-dives/src/mxfp-matmul/mx_kernels.py"
TUTORIAL = "guides/tutorials/kernel-optimization.rst"
_STUB_MODULES = {"language": "nl", "isa": "nisa"}
_TRN3_ONLY = frozenset({"trn2"})
_EVERYWHERE = frozenset({"trn2", "trn3"})
_MISTAKES = frozenset({("nki-aps.rst", 4)})  # blocks in error: a pattern without its outer brackets


def find(folder: Path) -> Path | None:
    """The documentation's NKI folder in a checkout."""
    for candidate in (folder / "nki", folder / "general" / "nki", folder):
        if (candidate / "examples").is_dir() and (candidate / "api" / "nki").is_dir():
            return candidate
    return None


def cases(root: Path) -> list[Case]:
    """All cases of the documentation."""
    return [
        *example_cases(SUITE, root / "examples"),
        *_tutorial(root),
        *framework_guide.cases(SUITE, root),
        *(case for page in PAGES if (root / page).is_file() for case in _page(root / page)),
        *(case for module in _STUB_MODULES for case in _stubs(root, module)),
        *_microscaling(root / MICROSCALING),
        *pytest_cases(SUITE, root, sorted((root / "test").glob("test_*.py")), leave="perf"),
        *beta_1_cases(SUITE, root, sorted(root.rglob("*.py"))),
    ]


def _microscaling(path: Path) -> Iterator[Case]:
    if path.is_file():
        yield from file_cases(SUITE, path, mx_variants(path, _TRN3_ONLY))


def _tutorial(root: Path) -> Iterator[Case]:
    """The versions of the tutorial's kernel, in order: one tile, then any number of tiles."""
    page = root / TUTORIAL
    if not page.is_file():
        return
    blocks = [block for block in blocks_of_page(page) if "matrix_multiply_kernel" in analyse(block.text).kernels]
    for number, block in enumerate(blocks, start=1):
        k, m, n = (128, 128, 512) if number == 1 else (1024, 2048, 1024) if number == len(blocks) else (256, 512, 1024)
        launch = Launch(
            "matrix_multiply_kernel",
            ref.arrays(lhs=(k, m), rhs=(k, n)),
            ref.matmul_transposed,
            ref.rounding(ref.FLOAT32, scale=k**0.5),
        )
        source = GeneratedSource(page, f"version_{number}", module_text([block.text]))
        # They return nl.hbm, which is an error since NKI 0.3 (release notes).
        yield Case(SUITE, f"matrix_multiply_kernel v{number}", source, launch, TARGET_MODES, refused_on=_EVERYWHERE)


def _page(page: Path) -> Iterator[Case]:
    blocks = blocks_of_page(page)
    for index, block in enumerate(blocks):
        analysis = analyse(block.text)
        label = f"line {block.line}"
        entries = guide_examples.entries(page.name, analysis)
        if entries:
            for entry in entries:
                yield _entry_case(page, f"{label} {entry.name}", [block], entry, frozenset())
            continue
        chain = continued(blocks, index)
        illegal = "is illegal" in block.text or (page.name, index) in _MISTAKES
        refused = _EVERYWHERE if illegal else frozenset()
        yield _plain_case(page, label, chain, block, analysis, refused)


def _stubs(root: Path, module: str) -> Iterator[Case]:
    path = root / "api" / "nki" / module / "__init__.py"
    if not path.is_file():
        return
    for block in blocks_of_docstrings(path):
        analysis = analyse(block.text)
        label = f"{_STUB_MODULES[module]}.{block.owner}[{block.index}]"
        refused = _TRN3_ONLY if "Available only on NeuronCore-v4" in block.context else frozenset()
        entry = api_examples.EXAMPLES.get(label)
        if entry is not None and (entry.kernel or entry.function or set(analysis.free) <= entry.given):
            yield _entry_case(path, label, [block], entry, refused)
        else:
            yield _plain_case(path, label, [block] if not analysis.free else None, block, analysis, refused)


def _plain_case(
    path: Path,
    label: str,
    chain: list[CodeBlock] | None,
    block: CodeBlock,
    analysis: Analysis,
    refused: frozenset[str],
) -> Case:
    """A block that needs nothing from us, or the reason why it cannot run."""
    source = GeneratedSource(path, label, "")
    if analysis.kind is Kind.UNUSABLE:
        return Case(SUITE, label, source, modes=(Mode.FILE,), skip=analysis.reason)
    if chain is None:
        return Case(SUITE, label, source, modes=(Mode.FILE,), skip=f"needs {', '.join(analysis.free)}")
    if analysis.inert:
        return Case(SUITE, label, source, modes=(Mode.FILE,), skip="only defines functions or classes")
    if analysis.kind is Kind.MODULE:
        return Case(SUITE, label, source, modes=(Mode.FILE,), skip=f"no inputs known for {analysis.kernels[0]}")
    if analysis.kind is Kind.SCRIPT:
        source = GeneratedSource(path, label, module_text([block.text]))
        return Case(SUITE, label, source, modes=(Mode.FILE,))
    source = GeneratedSource(path, label, kernel_text([part.text for part in chain]))
    checks = any(analyse(part.text).asserts for part in chain)
    launch = Launch("block", pairs=True, checks_itself=checks)
    return Case(SUITE, label, source, launch, refused_on=refused)


def _entry_case(
    path: Path, label: str, chain: Sequence[CodeBlock], entry: api_examples.Example, refused: frozenset[str]
) -> Case:
    """A block with inputs and a reference of ours."""
    texts = [block.text for block in chain]
    if entry.kernel:
        text, kernel = module_text(texts), entry.kernel
    elif entry.function:
        text, kernel = call_text(texts, entry.function, entry.parameters), "block"
    else:
        text, kernel = kernel_text(texts, entry.parameters, entry.outputs, entry.results), "block"
    launch = Launch(
        kernel,
        entry.arguments,
        entry.reference,
        entry.tolerance,
        mutates=entry.mutates,
        pairs=not entry.kernel and not entry.function,
        read=entry.read,
    )
    return Case(SUITE, label, GeneratedSource(path, label, text), launch, refused_on=refused | entry.refused_on)
