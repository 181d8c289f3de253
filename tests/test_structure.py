"""Imports point backwards along the path of the data, and importing is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import residua

SOURCE = Path(residua.__file__).parent
# What each part may import of the package, besides itself, config, errors and files.
ALLOWED = {
    "config": set(),
    "settings": set(),
    "weights": {"networks", "screen"},
    "options": set(),
    "errors": set(),
    "files": set(),
    "data": set(),
    "networks": set(),
    "screen": set(),
    "machine": set(),
    "scores": set(),
    "fonts": set(),
    "charts": set(),
    "automatic": set(),
    "figures": {"fonts", "charts"},
    "presentation": {"scores"},
    "report": {"automatic", "fonts", "charts", "figures", "presentation", "scores"},
    "run": {"data", "weights"},
    "inference": {"networks", "weights"},
    "loading": {"inference", "networks", "run", "screen", "weights"},
    "training": {"data", "machine", "run", "screen", "weights"},
    "preparation": {"automatic", "data", "machine", "run", "screen", "weights"},
    "judging": {"data", "inference", "scores", "screen", "weights"},
    "evaluation": {"data", "inference", "judging", "run", "scores", "screen", "weights"},
    "prediction": {"data", "inference", "judging", "networks", "weights"},
    "transfer": {
        "automatic",
        "data",
        "inference",
        "loading",
        "machine",
        "networks",
        "preparation",
        "run",
        "screen",
        "training",
        "weights",
    },
    "composing": set(),
    "differences": set(),
    "pairing": {"differences", "run"},
    "overlays": {"charts", "figures", "fonts", "studies"},
    "contrasts": {"charts", "differences", "overlays", "pairing", "run", "studies"},
    "comparing": {"charts", "contrasts", "fonts", "networks", "pairing", "run", "studies"},
    "studies": {
        "charts",
        "composing",
        "data",
        "differences",
        "figures",
        "learning",
        "machine",
        "networks",
        "preparation",
        "presentation",
        "run",
        "screen",
        "training",
        "transfer",
    },
    "showing": {"networks"},
    "inspection": {"weights"},
    "verification": {"data", "inference", "networks", "weights"},
    "looking": {"data", "preparation", "screen", "starting", "transfer"},
    "starting": {"loading", "preparation", "run", "screen", "weights"},
    "learning": {
        "automatic",
        "data",
        "evaluation",
        "judging",
        "loading",
        "machine",
        "networks",
        "preparation",
        "reporting",
        "run",
        "screen",
        "starting",
        "training",
        "transfer",
        "weights",
    },
    "reporting": {
        "automatic",
        "data",
        "judging",
        "figures",
        "fonts",
        "networks",
        "prediction",
        "preparation",
        "report",
        "run",
        "training",
    },
}
ABOVE_ALL = {"api", "cli", "demonstration", "__init__", "__main__"}
BELOW_ALL = {"config", "settings", "errors", "files"}


def part_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {f"{node.module}.{each.name}" for each in node.names}
    return {part_of(each) for each in found if each.startswith("residua.")}


def test_imports_point_backwards() -> None:
    for file in SOURCE.rglob("*.py"):
        own = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if own in ABOVE_ALL:
            assert "cli" not in imports_of(file) or own in ("cli", "__main__"), file
            continue
        wrong = imports_of(file) - ALLOWED[own] - BELOW_ALL - {own, "__version__"}
        assert not wrong, f"{file.relative_to(SOURCE)} imports {sorted(wrong)}"


def test_no_public_name_is_a_module() -> None:
    modules = {file.stem for file in SOURCE.glob("*.py")} | {
        folder.name for folder in SOURCE.iterdir() if folder.is_dir()
    }
    assert not modules & set(residua.__all__)
    assert all(getattr(residua, name) is not None for name in residua.__all__)


def test_files_stay_readable() -> None:
    for file in SOURCE.rglob("*.py"):
        limit = 400 if file.stem == "catalogue" else 300  # a table
        assert len(file.read_text("utf-8").splitlines()) <= limit, file


def test_what_must_not_import_torch_does_not() -> None:
    code = (
        "import sys, residua, residua.cli, residua.config, residua.data.pictures, "
        "residua.data.folder, residua.data.split, residua.scores, residua.report; "
        "heavy = {'torch', 'sklearn', 'matplotlib', 'scipy', 'jinja2'} & set(sys.modules); "
        "sys.exit(f'imports {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
