"""The machine and the package versions of a measurement."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Iterable
from pathlib import Path

#: The packages that kernels are compared with.
PACKAGES = (
    *("numba", "numpy", "scikit-image", "pydensecrf2", "PyMaxflow", "thinhpf", "bkgco"),
    *("gco-wrapper", "fast-slic", "opencv-contrib-python-headless", "pyamg", "morphsnakes"),
)


def describe_machine(packages: Iterable[str] = PACKAGES) -> dict[str, str]:
    """Return the processor, cores, Python, and the versions of packages."""
    found = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
    }
    for package in packages:
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
