"""Who may import whom, read from the sources: docs/architecture.md has the same table in words.

Imports inside functions count as any other; those under `if TYPE_CHECKING` do not, since they never run.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("bpflisp", "simulator", "pytest_plugin")


@dataclass(frozen=True, slots=True)
class Import:
    """One import: of which module, by which, at which line, and whether only a call reaches it."""

    importer: str
    module: str
    line: int
    lazy: bool

    @property
    def ours(self) -> bool:
        """Whether it is of one of our packages."""
        return self.module.split(".")[0] in PACKAGES


# First match wins: modules under the prefix may import modules under these prefixes, their own layer, and the
# standard library. "*" is anything.
LAYERS: Sequence[tuple[str, tuple[str, ...]]] = (
    ("bpflisp.lean", ()),
    ("bpflisp.spec", ("bpflisp.lean",)),
    ("bpflisp.diagnostics", ("bpflisp.lean",)),
    ("bpflisp.syntax", ("bpflisp.spec", "bpflisp.diagnostics", "bpflisp.lean")),
    ("bpflisp.ir", ("bpflisp.spec", "bpflisp.diagnostics", "bpflisp.lean")),
    ("bpflisp.front", ("bpflisp.syntax", "bpflisp.ir", "bpflisp.spec", "bpflisp.diagnostics", "bpflisp.lean")),
    ("bpflisp.opt", ("bpflisp.ir", "bpflisp.spec", "bpflisp.lean")),
    ("bpflisp.back", ("bpflisp.ir", "bpflisp.spec", "bpflisp.diagnostics", "bpflisp.lean")),
    ("bpflisp.link", ("bpflisp.spec", "bpflisp.lean")),
    ("bpflisp.bindings", ("bpflisp.spec", "bpflisp.lean")),
    ("bpflisp.cli", ("*",)),
    ("bpflisp.__main__", ("*",)),
    ("bpflisp", ("bpflisp",)),
    ("simulator", ("bpflisp.spec", "bpflisp.diagnostics", "bpflisp.lean")),
    ("pytest_plugin", ("*",)),
)

# What the plugin may import of the other two: their public names, and modules that are public as a whole.
PLUGIN_MAY = ("bpflisp.spec", "bpflisp.diagnostics", "simulator.coverage")

# (importer, imported): never, whatever the table above says. The last two: they stand above engines and verifier.
FORBIDDEN: Sequence[tuple[str, str]] = (
    ("simulator.verifier", "simulator.engines"),
    ("simulator.verifier", "simulator.run"),
    ("simulator.verifier", "simulator.world"),
    ("simulator.engines", "simulator.verifier"),
    ("simulator.run", "simulator.verifier"),
    ("simulator.engines", "simulator.coverage"),
    ("simulator.verifier", "simulator.coverage"),
    ("simulator.engines", "simulator.witness"),
    ("simulator.verifier", "simulator.witness"),
    ("bpflisp", "simulator"),
    ("bpflisp", "pytest_plugin"),
    ("simulator", "pytest_plugin"),
)

# (importer, imported), only inside a function: methods that stand for a function of a module above.
EXCEPTIONS = frozenset(
    {
        ("simulator.program", "simulator.loader"),
        ("simulator.program", "simulator.run"),
        ("simulator.program", "simulator.verifier"),
        ("simulator.loader", "bpflisp"),
    }
)

# Third parties that the library must not load until they are needed.
HEAVY = frozenset({"scapy", "hypothesis", "rich", "unicorn", "elftools", "click", "pytest"})


def _under(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(prefix + ".")


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def _modules() -> dict[str, Path]:
    return {_name(path): path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))}


def _guards_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)


def _targets(node: ast.Import | ast.ImportFrom, importer: str, package: bool) -> Iterator[str]:
    """The modules that a statement imports: `from a import b` is `a.b` where that is a module, else `a`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        parts = importer.split(".")
        kept = parts[: len(parts) - node.level + (1 if package else 0)]
        base = ".".join([*kept, *([base] if base else [])])
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield inner if inner in _modules() else base


def _walk(node: ast.AST, importer: str, package: bool, lazy: bool) -> Iterator[Import]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        for module in _targets(node, importer, package):
            yield Import(importer, module, node.lineno, lazy)
        return
    if _guards_types(node):
        return
    inside = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for child in ast.iter_child_nodes(node):
        yield from _walk(child, importer, package, inside)


@cache
def _imports() -> list[Import]:
    found: list[Import] = []
    for name, path in _modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found += _walk(tree, name, path.name == "__init__.py", lazy=False)
    return found


def _layer(module: str) -> tuple[str, tuple[str, ...]]:
    return next((prefix, allowed) for prefix, allowed in LAYERS if _under(module, prefix))


def _excepted(found: Import) -> bool:
    """The compiler is reached through its public names alone: of `bpflisp` the package itself, of the others all."""
    for importer, imported in EXCEPTIONS:
        same = found.module == imported if imported == "bpflisp" else _under(found.module, imported)
        if found.lazy and same and _under(found.importer, importer):
            return True
    return False


def _permitted(found: Import) -> bool:
    prefix, allowed = _layer(found.importer)
    if "*" in allowed:
        return True
    inside = _layer(found.module)[0] == prefix and _under(found.module, prefix)
    return inside or any(_under(found.module, name) for name in allowed)


def _shown(wrong: list[Import]) -> str:
    return "\n".join(f"{found.importer}:{found.line} imports {found.module}" for found in wrong)


def test_every_import_is_of_a_layer_below() -> None:
    wrong = [found for found in _imports() if found.ours and not _permitted(found) and not _excepted(found)]
    assert not wrong, _shown(wrong)


def test_what_is_forbidden_is_not_done() -> None:
    wrong = [
        found
        for found in _imports()
        for importer, imported in FORBIDDEN
        if _under(found.importer, importer) and _under(found.module, imported) and _layer(found.importer)[1] != ("*",)
    ]
    assert not wrong, _shown(wrong)


def test_the_plugin_uses_public_names() -> None:
    wrong = [
        found
        for found in _imports()
        if _under(found.importer, "pytest_plugin") and found.ours and not _under(found.module, "pytest_plugin")
        if found.module not in ("simulator", "bpflisp") and not any(_under(found.module, name) for name in PLUGIN_MAY)
    ]
    assert not wrong, _shown(wrong)


def test_nobody_imports_the_command_line() -> None:
    wrong = [
        found
        for found in _imports()
        if _under(found.module, "bpflisp.cli")
        and not _under(found.importer, "bpflisp.cli")
        and found.importer != "bpflisp.__main__"
    ]
    assert not wrong, _shown(wrong)


def test_facts_and_diagnostics_need_the_standard_library_alone() -> None:
    wrong = [
        found
        for found in _imports()
        if _under(found.importer, "bpflisp.spec") or _under(found.importer, "bpflisp.diagnostics")
        if not found.ours and found.module.split(".")[0] not in sys.stdlib_module_names
    ]
    assert not wrong, _shown(wrong)


def test_heavy_third_parties_are_imported_when_they_are_used() -> None:
    wrong = [
        found
        for found in _imports()
        if not found.lazy and found.module.split(".")[0] in HEAVY
        if not _under(found.importer, "pytest_plugin") and not _under(found.importer, "bpflisp.cli")
    ]
    assert not wrong, _shown(wrong)


def test_modules_do_not_import_each_other_in_a_ring() -> None:
    edges: dict[str, set[str]] = {}
    for found in _imports():
        if found.ours and not found.lazy and found.module in _modules() and found.module != found.importer:
            edges.setdefault(found.importer, set()).add(found.module)
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module in done:
            return
        for target in sorted(edges.get(module, ())):
            visit(target, (*trail, module))
        done.add(module)

    for module in sorted(edges):
        visit(module, ())


@pytest.mark.parametrize("module", ["simulator", "bpflisp"])
def test_the_reader_of_imports_sees_what_is_there(module: str) -> None:
    assert any(_under(found.importer, module) and found.ours for found in _imports())
    assert any(found.lazy for found in _imports())


@pytest.mark.parametrize("folder", ["simulator", "simulator/verifier", "bpflisp/spec", "pytest_plugin"])
def test_the_plan_names_every_module(folder: str) -> None:
    plan = set(re.findall(r"\w+", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")))
    modules = {file.stem for file in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert modules <= plan
