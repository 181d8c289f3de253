"""Imports point down the layers, and importing is cheap."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import residua

SOURCE = Path(residua.__file__).parent
LAYERS = (  # from the bottom: a folder imports from its own layer only itself, and from those above
    {"errors", "_version"},
    {"system"},
    {"config"},
    {"networks"},
    {"data"},
    {"uncertainty"},
    {"weights"},
    {"runs"},
    {"inference"},
    {"evaluation"},
    {"training"},
    {"transfer", "exports", "serving"},
    {"audits"},
    {"report"},
    {"experiment"},
    {"comparison", "api"},
    {"studies"},
    {"cli"},
    {"__init__", "__main__"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def folder_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


@cache
def import_statements(file: Path) -> list[ast.Import | ast.ImportFrom]:
    tree = ast.parse(file.read_text("utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]


def imports_of(file: Path) -> Iterator[str]:
    for node in import_statements(file):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name.split(".")[0] == "residua")
        elif (node.module or "").split(".")[0] == "residua":
            assert node.module is not None
            names = (f"{node.module}.{name.name}" for name in node.names)
            yield from names if node.module == "residua" else (node.module,)


def test_every_folder_has_a_layer() -> None:
    found = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py"}
    found |= {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert found == set(LEVEL)


def test_imports_point_down() -> None:
    for file in SOURCE.rglob("*.py"):
        own = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        for module in imports_of(file):
            other = folder_of(module)
            down = LEVEL[other] < LEVEL[own] or other == own
            assert down, f"{file.relative_to(SOURCE)} imports {module}"


def module_graph() -> dict[str, set[str]]:
    """Module -> the modules that it imports, at its top, inside functions or for types alone."""
    files = {module_of(file): file for file in SOURCE.rglob("*.py")}
    graph = {}
    for module, file in files.items():
        imported = set()
        for node in import_statements(file):
            if isinstance(node, ast.Import):
                imported |= {name.name for name in node.names}
            else:
                names = {f"{node.module}.{name.name}" for name in node.names}
                imported |= {name if name in files else str(node.module) for name in names}
        graph[module] = imported & files.keys() - {"residua"}  # its names are imported when used
    return graph


def module_of(file: Path) -> str:
    parts = ("residua", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_modules_form_no_cycle() -> None:
    graph = module_graph()
    assert sum(map(len, graph.values())) > 200
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise AssertionError(" -> ".join(error.args[1])) from error


def test_no_public_name_is_a_module() -> None:
    modules = {file.stem for file in SOURCE.glob("*.py")} | {
        folder.name for folder in SOURCE.iterdir() if folder.is_dir()
    }
    assert not modules & set(residua.__all__)
    assert all(getattr(residua, name) is not None for name in residua.__all__)


def test_no_file_is_too_long_to_read() -> None:
    for file in SOURCE.rglob("*.py"):
        assert len(file.read_text("utf-8").splitlines()) <= 450, file


def test_what_must_not_import_torch_does_not() -> None:
    code = (
        "import sys, residua, residua.cli, residua.config.schema, residua.data.image, "
        "residua.data.folder, residua.data.split, residua.evaluation.metrics, residua.report.html, "
        "residua.exports.worker; "
        "heavy = {'torch', 'sklearn', 'matplotlib', 'scipy', 'jinja2'} & set(sys.modules); "
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_plain_training_does_not_import_the_strategies() -> None:
    """Only what the report reads of transfer.json."""
    code = (
        "import sys, residua.experiment; "
        "names = [name for name in sys.modules if name.startswith('residua.transfer.')]; "
        "sys.exit(names != ['residua.transfer.result'])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_benchmarks_import_what_exists() -> None:
    files = (Path(__file__).parents[1] / "benchmarks").glob("*.py")
    for file in files:
        for node in import_statements(file):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("residua"):
                assert node.module is not None
                module = importlib.import_module(node.module)
                missing = [name.name for name in node.names if not hasattr(module, name.name)]
                for name in missing:  # a module of a package
                    importlib.import_module(f"{node.module}.{name}")
