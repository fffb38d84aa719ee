"""What a measurement was taken on: processor, threads, versions."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def device_facts(runtime: str, threads: int) -> dict[str, str | int]:
    """Plain values that tell one set-up from another.

    Args:
        runtime: What computes: torch or onnxruntime.
        threads: That it computes with.
    """
    return {
        "cpu": processor(),
        "cores": os.cpu_count() or 1,
        "system": f"{platform.system()} {platform.machine()}",
        "runtime": runtime,
        "threads": threads,
        "version": version(runtime),
    }


def processor(info: Path = Path("/proc/cpuinfo")) -> str:
    """Name of the processor."""
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
