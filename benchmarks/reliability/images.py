"""Damaged images, volumes and arrays, read by child processes with limits on time and memory."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.image_files import damage, make_bombs, make_files
from benchmarks.reliability.tables import Table

#: The bytes that a file may unpack to in the children, and the memory that reading may take.
BOUND = 64 * 2**20
ALLOWED = 6 * BOUND
#: A read that takes longer counts as a hang.
SECONDS = 60.0

OUTCOMES = ("read", "refused", "undocumented", "wrong shape", "memory", "hang", "crash")


def measure(seconds: float, seed: int) -> list[Table]:
    """Damage files for ``seconds``; count the outcomes of reading them."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "whole").mkdir()
        (folder / "bombs").mkdir()
        groups = make_files(folder / "whole", seed)
        with_reader = Reader(folder / "noise.txt")
        counts: dict[str, Counter[str]] = {}
        whole = _count(with_reader, [path for paths in groups.values() for path in paths])
        counts["whole files"] = whole
        for kind, paths in groups.items():
            counts[f"{kind}, damaged"] = _damaged(
                with_reader, paths, folder, seconds / len(groups), seed
            )
        counts["bombs"] = _count(with_reader, make_bombs(folder / "bombs"))
        with_reader.close()
        noise = len((folder / "noise.txt").read_text().splitlines())
        return [_table(counts, noise, with_reader.examples)]


def _damaged(
    reader: Reader, paths: list[Path], folder: Path, seconds: float, seed: int
) -> Counter[str]:
    rng = np.random.default_rng((seed, len(paths)))
    counts: Counter[str] = Counter()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        source = paths[int(rng.integers(len(paths)))]
        way, content = damage(source.read_bytes(), rng)
        target = folder / source.name
        target.write_bytes(content)
        counts[reader.read(target, way)] += 1
    return counts


def _count(reader: Reader, paths: list[Path]) -> Counter[str]:
    return Counter(reader.read(path, "as it is") for path in paths)


class Reader:
    """A child process that reads files; a new one replaces it if it dies or hangs."""

    def __init__(self, noise: Path) -> None:
        self.noise = noise.open("ab")
        self.child: subprocess.Popen[bytes] | None = None
        self.examples: list[tuple[str, str, str, bytes]] = []

    def read(self, path: Path, way: str) -> str:
        """Let the child read a file; return the outcome."""
        outcome, detail = self._ask(path)
        if outcome not in ("read", "refused"):
            self.examples.append((outcome, f"{path.name} ({way})", detail, path.read_bytes()))
        return outcome

    def _ask(self, path: Path) -> tuple[str, str]:
        if self.child is None or self.child.poll() is not None:
            self.child = self._start()
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(f"{path}\n".encode())
        self.child.stdin.flush()
        if not select.select([self.child.stdout], [], [], SECONDS)[0]:
            self.close()
            return "hang", ""
        line = self.child.stdout.readline()
        if not line:
            code = self.child.wait()
            return "crash", f"exit code {code}"
        outcome, detail = json.loads(line)
        return outcome, detail

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [sys.executable, "-m", "benchmarks.reliability.images"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.noise,
            env={**os.environ, "HYBRIDSEG_MAX_UNPACKED_BYTES": str(BOUND)},
        )

    def close(self) -> None:
        """End the child."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None


def _table(
    counts: dict[str, Counter[str]], noise: int, examples: list[tuple[str, str, str, bytes]]
) -> Table:
    rows = [(name, *(found[outcome] for outcome in OUTCOMES)) for name, found in counts.items()]
    total = [sum(row[i] for row in rows) for i in range(1, len(OUTCOMES) + 1)]
    shown = "; ".join(f"{name}: {outcome} {detail}" for outcome, name, detail, _ in examples[:20])
    return Table(
        "Damaged files",
        f"Files of every format were damaged: cut short, with flipped bits, with changed sizes, "
        f"with bytes set to zero, repeated or appended. `read_image`, `read_labels` and a Scene "
        f"read each file in a child process, with warnings as errors. *Refused*: "
        f"`UnreadableFileError`. *Wrong shape*: an array whose shape is not the one in the file's "
        f"header. *Memory*: more than {ALLOWED // 2**20} MiB, if a file may unpack to "
        f"{BOUND // 2**20} MiB. *Hang*: more than {SECONDS:g} s. A file with damaged pixels or "
        f"unused parts can still be read. Lines that decoders wrote to the terminal: {noise}."
        + (f" Failures: {shown}." if shown else ""),
        ("files", *OUTCOMES),
        (*rows, ("all", *total)),
    )


def _serve() -> None:
    """Read each file that is named on a line, and print the outcome (runs in the child)."""
    import resource
    import warnings

    resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("error")
    warnings.filterwarnings("ignore", message=".*(is a JPEG|palette of grays)")
    base = _peak()
    for line in sys.stdin:
        _reset_peak()
        answer = outcome_of(Path(line.rstrip("\n")))
        if answer[0] in ("read", "refused") and _peak() - base > ALLOWED:
            answer = ("memory", f"{(_peak() - base) / 2**20:.0f} MiB")
        print(json.dumps(answer), flush=True)


def outcome_of(path: Path) -> tuple[str, str]:
    """Return the outcome of reading a file, and a detail."""
    from hybridseg import Scene
    from hybridseg.datasets import UnreadableFileError, read_image, read_labels

    found: Any = None
    detail = ""
    for read in (read_image, read_labels, lambda p: Scene(p).image, lambda p: Scene(p).spacing):
        try:
            array = read(path)
            if found is None and isinstance(array, np.ndarray):
                found = array
        except UnreadableFileError as error:
            detail = str(error)
            if path.name not in detail:
                return "undocumented", f"does not name the file: {detail}"
        except BaseException as error:
            return "undocumented", f"{type(error).__name__}: {error}"[:300]
    if found is None:
        return "refused", detail
    sides = stated_sides(path)
    if sides and Counter(sides) - Counter(found.shape):
        return "wrong shape", f"{found.shape} where the header says {sides}"
    if found.dtype.kind not in "buif":
        return "wrong shape", f"values of {found.dtype}"
    return "read", ""


def stated_sides(path: Path) -> tuple[int, ...]:
    """Return the shape that the header of a file states; () if the format is not known here."""
    content = path.read_bytes()
    if content[:8] == b"\x89PNG\r\n\x1a\n":
        return tuple(np.frombuffer(content, ">u4", 2, 16).tolist())
    if content[:2] == b"BM" and len(content) > 26:
        return tuple(np.abs(np.frombuffer(content, "<i4", 2, 18)).tolist())
    if content[:6] == b"\x93NUMPY":
        return np.load(path, mmap_mode="r").shape
    if path.suffix == ".nii" and content[344:347] == b"n+1":
        order = "<" if content[0] == 92 else ">"
        rank = int(np.frombuffer(content, f"{order}i2", 1, 40)[0])
        return tuple(np.frombuffer(content, f"{order}i2", min(rank, 3), 42).tolist())
    return ()


def _peak() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    _serve()
