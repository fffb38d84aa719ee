"""`limbeck doctor`: what is installed here, and what would stand in the way of a run."""

import os
import sys
from pathlib import Path

from limbeck import __version__
from limbeck.cli.console import give

_CORE = ("torch", "numpy", "scipy", "scikit-learn", "pyarrow", "safetensors", "accelerate")
_EXTRAS = {"export": ("onnx", "onnxscript", "onnxruntime")}
_ROOM_BYTES = 2_000_000_000


def doctor(*, json: bool = False) -> int:
    """Check this machine: versions, devices, optional parts, room on the disk.

    Parameters
    ----------
    json
        Write the findings as JSON.
    """
    found = _facts()
    problems = _problems(found)
    if json:
        give({**found, "problems": problems})
    else:
        for name, value in found.items():
            print(f"{name:<16} {value}")
        for problem in problems:
            print(f"problem          {problem}")
        print("nothing stands in the way" if not problems else "see the problems above")
    return 1 if problems else 0


def _facts() -> dict[str, str | int]:
    import platform
    import shutil
    import sqlite3
    from importlib.util import find_spec

    facts: dict[str, str | int] = {
        "limbeck": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count() or 1,
        "sqlite": sqlite3.sqlite_version,
    }
    facts |= {name: _version(name) for name in _CORE}
    facts["device"] = _device()
    facts["free_bytes"] = shutil.disk_usage(Path.cwd()).free
    facts["folder"] = "writable" if os.access(Path.cwd(), os.W_OK) else "read-only"
    for extra, packages in _EXTRAS.items():
        missing = [name for name in packages if find_spec(name) is None]
        line = f"not installed: pip install 'limbeck[{extra}]'"
        facts[f"extra {extra}"] = line if missing else "installed"
    return facts


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _device() -> str:
    import torch

    if torch.cuda.is_available():
        return f"cuda: {torch.cuda.get_device_name(0)}"
    if torch.backends.mps.is_available():
        return "mps"
    return f"cpu, {torch.get_num_threads()} threads"


def _problems(facts: dict[str, str | int]) -> list[str]:
    problems = [
        f"{name} is missing; run: pip install limbeck" for name in _CORE if facts[name] == "missing"
    ]
    if sys.platform == "win32":
        problems.append("Windows is not supported; use Linux, macOS or WSL.")
    if facts["folder"] == "read-only":
        problems.append("this folder is read-only; a run cannot write here.")
    if int(facts["free_bytes"]) < _ROOM_BYTES:
        problems.append("less than 2 GB is free on this disk; a large pool may not fit.")
    return problems
