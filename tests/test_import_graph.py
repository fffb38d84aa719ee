"""The house rule: arrows point down, and `import limbeck` is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src" / "limbeck"
FOUNDATION = {"errors", "answers", "numerics", "storage", "registry"}
KERNELS = {"trust", "objectives", "select", "search"}
EDGES = {"data", "teachers", "ledger", "students", "engines", "report"}
SHELLS = {"distill", "testing"}
RUN = "a kernel's run.py"
FILES = sorted(SRC.rglob("*.py"))


def room(path: Path) -> str:
    """Top-level folder or module of a file."""
    parts = path.relative_to(SRC).parts
    # A kernel with a command has one module that joins it to files, which nothing of it imports.
    return RUN if parts[0] in KERNELS and parts[-1] == "run.py" else parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Rooms of limbeck that a file imports, wherever in the file it does so."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "limbeck" and len(parts) > 1:
                found.add(parts[1])
    return found - {room(path)}


def allowed(name: str) -> set[str]:
    if name == "errors":
        return set()
    if name in FOUNDATION:
        return FOUNDATION
    if name in KERNELS:
        return {"errors", "answers", "numerics", "registry"}
    if name in EDGES:
        return FOUNDATION | KERNELS | EDGES
    if name in SHELLS or name == RUN:
        return FOUNDATION | KERNELS | EDGES | {"__version__"}
    if name == "cli":
        return FOUNDATION | KERNELS | EDGES | SHELLS | {"__version__"}
    return {"cli"} if name == "__main__" else {"students", "errors"}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SRC)))
def test_a_file_imports_only_what_lies_below_it(path):
    too_high = imported_rooms(path) - allowed(room(path))
    assert not too_high, f"{path.relative_to(SRC)} may not import {sorted(too_high)}"


def test_every_room_has_a_place_in_the_house():
    rooms = {room(path) for path in FILES} - {"__init__", "__main__", "cli", RUN}
    assert rooms <= FOUNDATION | KERNELS | EDGES | SHELLS


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(' '.join(m.split('.')[0] for m in sys.modules))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_import_limbeck_loads_nothing_heavy():
    heavy = {"torch", "numpy", "scipy", "sklearn", "pyarrow", "matplotlib", "accelerate"}
    assert not heavy & loaded_after("import limbeck")


def test_the_command_line_shows_its_help_without_loading_torch():
    statement = "from limbeck.cli import build_app; build_app()"
    assert not {"torch", "numpy", "sklearn", "pyarrow"} & loaded_after(statement)
