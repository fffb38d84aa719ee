"""The wheel holds the package, all of it and nothing else, and works when it is installed."""

import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("build", reason="needs the extra dev")
ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/limbeck"


def run(*words: str | Path, cwd: Path) -> str:
    """Run a command without this process's Python path."""
    done = subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", folder, ROOT, cwd=folder)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """An environment with the wheel; its dependencies are those that run this test."""
    home = wheel.parent / "environment"
    venv.create(home, with_pip=True)
    paths = {"base": str(home), "platbase": str(home)}
    site = Path(sysconfig.get_path("purelib", "venv", paths))
    # A folder that a .pth file names comes after the environment's own, so ours wins there.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = ("-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed")
    run(home / "bin/python", *pip, wheel, cwd=wheel.parent)
    return home


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(wheel: Path) -> None:
    files = {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and ".mypy_cache" not in path.parts
    }
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert held == files
    assert "limbeck/py.typed" in held
    assert any(name.endswith(".j2") for name in held)


def test_the_wheel_names_its_licence_and_command(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert any(name.endswith("entry_points.txt") for name in names)


def test_the_installed_command_answers(installed: Path, tmp_path: Path) -> None:
    assert run(installed / "bin/limbeck", "--version", cwd=tmp_path).strip() == "0.1.0"
    assert "nothing stands in the way" in run(installed / "bin/limbeck", "doctor", cwd=tmp_path)


def test_the_package_comes_from_the_wheel_and_finds_its_data_files(
    installed: Path, tmp_path: Path
) -> None:
    code = (
        "import limbeck, importlib.resources as r; print(limbeck.__file__); "
        "print(sum(1 for f in r.files('limbeck.report').joinpath('templates').iterdir()))"
    )
    file, templates = run(installed / "bin/python", "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed)
    assert int(templates) >= 2
