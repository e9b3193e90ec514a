"""What the figures were taken on."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

PACKAGES = (
    *("numba", "numpy", "scikit-image", "pydensecrf2", "PyMaxflow", "thinhpf", "bkgco"),
    *("gco-wrapper", "fast-slic", "opencv-contrib-python-headless", "pyamg", "morphsnakes"),
)


def describe_machine() -> dict[str, str]:
    """Processor, threads, Python, and the versions of the packages that were compared."""
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
