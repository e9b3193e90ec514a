"""Invalid arguments for every public function and estimator.

``python -m benchmarks reliability --only inputs`` draws random cases for ``--seconds``;
``python -m benchmarks.reliability.inputs NAME`` shows the failures of one name.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import multiprocessing
import multiprocessing.connection
import os
import resource
import sys
import time
import traceback
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.reliability.callables import Target, deep, estimators, functions, targets
from benchmarks.reliability.nasty import ENDLESS, SAME, choices
from benchmarks.reliability.tables import Table
from hybridseg.datasets import UnreadableFileError

#: A case that takes more seconds hangs; the first call may compile.
PATIENCE = 20.0
COMPILING = 300.0

#: The memory in bytes that a case may add to its process.
ROOM = 3 * 2**30

#: Errors that count as clear if the message names an argument.
DOCUMENTED = (TypeError, ValueError, ImportError, FileNotFoundError)

#: Names of the items of an argument in messages.
ITEMS = {
    "X": ("image", "file"),
    "y": ("truth", "label map", "file"),
    "weights": ("edges",),
    "random_state": ("RandomState", "Seed must be"),
    "image": ("there is no such file", "No such file"),
}

OUTCOMES = ("named error", "result", "failure")


@dataclass(frozen=True)
class Outcome:
    """The outcome of one case, one of OUTCOMES, and a description of a failure."""

    kind: str
    text: str = ""
    warned: bool = False


def case(target: Target, number: int, seed: int) -> tuple[dict[str, Any], dict[str, str]]:
    """The arguments of one case, and which were replaced by what."""
    rng = np.random.default_rng([seed, number, zlib.crc32(target.name.encode())])
    given = copy.copy(target.good)
    names = list(given)
    n_changed = 1 + int(rng.random() < 0.15)
    changed: dict[str, str] = {}
    for name in rng.permutation(names)[:n_changed].tolist():
        makers = choices(given[name])
        if name in target.loops:
            makers = {key: make for key, make in makers.items() if key not in ENDLESS}
        kind = list(makers)[rng.integers(len(makers))]
        with warnings.catch_warnings(), contextlib.suppress(Exception):
            warnings.simplefilter("ignore")
            given[name] = makers[kind](given[name], rng)
            changed[name] = kind
    return given, changed


def same(target: Target) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Cases in which one array comes in another form with the same values."""
    for name, value in target.good.items():
        for form, make in SAME.items():
            if isinstance(value, np.ndarray):
                yield name, form, target.good | {name: make(value)}
            elif isinstance(value, list) and value and isinstance(value[0], np.ndarray):
                yield name, form, target.good | {name: [make(value[0]), *value[1:]]}


def judge(target: Target, given: dict[str, Any]) -> Outcome:
    """Call a target and return the outcome."""
    before = fingerprint(given)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result = target.call(**given)
            found = problem_of(realized(result), target.nan)
        except DOCUMENTED as error:
            found = "" if names_any(error, given) else f"names nothing: {shown(error)}"
            result = None
            kind = "named error"
        except Exception as error:  # all that is not documented
            found, kind = shown(error), "failure"
        else:
            kind = "result"
    if fingerprint(given) != before:
        found = f"wrote to its arguments; {found}"
    bare = [str(w.message) for w in caught if _is_bare(w)]
    if bare and not found:
        found = f"a bare warning: {bare[0]}"
    return Outcome("failure" if found else kind, found, bool(caught))


def _is_bare(warning: warnings.WarningMessage) -> bool:
    """Whether a warning is a bare floating-point warning, which does not help a user."""
    text = str(warning.message)
    return "encountered in" in text or issubclass(warning.category, np.exceptions.ComplexWarning)


def shown(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "hybridseg/" in f.filename.replace("\\", "/")]
    where = f" at {own[-1].filename.rpartition('hybridseg/')[2]}:{own[-1].lineno}" if own else ""
    return f"{type(error).__name__}{where}: {str(error)[:200]}"


def names_any(error: BaseException, given: Mapping[str, Any]) -> bool:
    """Whether the message names an argument; which of two that do not fit is a matter of view.

    What is wrong with a file names the file.
    """
    if isinstance(error, UnreadableFileError | FileNotFoundError):
        return True
    text = str(error) + " ".join(getattr(error, "__notes__", ()))
    return any(word in text for name in given for word in (name, *ITEMS.get(name, ())))


def realized(result: Any) -> Any:
    """Compute deferred results."""
    from hybridseg import Scene

    if isinstance(result, Scene):
        return [result.unary, result.prediction if result.has_costs else None]
    if isinstance(result, list | tuple):
        return [realized(item) for item in result]
    return result


def problem_of(result: Any, nan: bool, name: str = "result") -> str:
    """Return what is wrong with a result, or an empty text."""
    if is_dataclass(result) and not isinstance(result, type):
        every = ((f.name, getattr(result, f.name)) for f in fields(result))
        return next((p for n, v in every if (p := problem_of(v, nan, n))), "")
    if isinstance(result, Mapping):
        return next((p for k, v in result.items() if (p := problem_of(v, nan, str(k)))), "")
    if isinstance(result, list | tuple):
        return next((p for v in result if (p := problem_of(v, nan, name))), "")
    if not isinstance(result, np.ndarray | np.number | float | int):
        return ""
    values = np.asarray(result)
    if values.dtype.kind == "f":
        bad = np.isinf(values) if nan else ~np.isfinite(values)
        if bool(bad.any()):
            return f"{name} holds {values[bad].flat[0]}"
    if name in ("marginals", "proba") and values.size:
        sums = values.sum(axis=-1)
        if values.min() < 0 or abs(sums - 1).max() > 1e-3:
            return f"{name} are no probabilities"
    return ""


def fingerprint(value: Any) -> str:
    """Of every array within."""
    digest = hashlib.sha256()
    for part in _arrays(value):
        digest.update(repr((part.shape, part.dtype)).encode())
        digest.update(part.tobytes() if part.dtype.kind != "O" else repr(part.tolist()).encode())
    return digest.hexdigest()


def _arrays(value: Any) -> Iterator[np.ndarray]:
    if isinstance(value, np.ndarray):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _arrays(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _arrays(part)


def judge_same(target: Target) -> Iterator[tuple[str, Outcome]]:
    """Whether the form of an array in memory changes a result."""
    expected = realized(target.call(**target.good))
    for name, form, given in same(target):
        outcome = judge(target, given)
        if outcome.kind == "result" and not alike(realized(target.call(**given)), expected):
            outcome = Outcome("failure", "another result than with the same values")
        elif outcome.kind == "named error":
            outcome = Outcome("failure", "refused values that it takes in another form")
        yield f"{name} {form}", outcome


def alike(a: Any, b: Any) -> bool:
    """Whether two results hold the same numbers."""
    if is_dataclass(a) and not isinstance(a, type):
        return all(alike(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    if isinstance(a, Mapping):
        return all(alike(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(alike(x, y) for x, y in zip(a, b, strict=True))
    if isinstance(a, np.ndarray | np.number | float):
        return np.array_equal(a, b, equal_nan=np.asarray(a).dtype.kind == "f")
    return True


# ---------------------------------------------------------------- in a child


def work(pipe: multiprocessing.connection.Connection, seed: int) -> None:
    """Judge cases by name and number, in a process that may crash."""
    known = {target.name: target for target in (*functions(), *estimators())}
    soft = resource.getrlimit(resource.RLIMIT_AS)[1]
    while True:
        name, number = pipe.recv()
        if name not in known:  # torch takes its time
            known |= {target.name: target for target in deep()}
        target = known[name]
        if number < 0:
            found = list(judge_same(target))
            pipe.send(found)
            continue
        resource.setrlimit(resource.RLIMIT_AS, (_in_use() + ROOM, soft))
        given, changed = case(target, number, seed)
        pipe.send([(f"{number} {changed}", judge(target, given))])
        resource.setrlimit(resource.RLIMIT_AS, (soft, soft))


def _in_use() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _cpu_seconds(pid: int | None) -> float:
    """Processor time of a process so far."""
    with contextlib.suppress(OSError):
        parts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


class Child:
    """A process that judges cases; a new one replaces it if it dies."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.warm: set[str] = set()
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=work, args=(other, self.seed), daemon=True)
        self.process.start()
        self.fresh = True
        other.close()

    def ask(self, name: str, number: int) -> list[tuple[str, Outcome]]:
        with contextlib.suppress(OSError):  # of a process that is dead already; reading says so
            self.pipe.send((name, number))
        patience = COMPILING if self.fresh or number < 0 else PATIENCE
        self.fresh = False
        if self._answers(patience):
            try:
                return self.pipe.recv()
            except (EOFError, OSError):
                self.process.join(10)
                text = f"crash: exit code {self.process.exitcode}"
        else:
            self.process.kill()
            text = f"hang: no answer in {patience:g} s of processor time"
        self.process.join()
        self._start()
        return [(str(number), Outcome("failure", text))]

    def _answers(self, patience: float) -> bool:
        """Whether there is an answer before this much processor time, or ten times as long, ends.

        Other programs may take the processor: waiting long is no hanging then.
        """
        before, started = _cpu_seconds(self.process.pid), time.perf_counter()
        while not self.pipe.poll(0.2):
            waited = time.perf_counter() - started
            if not self.process.is_alive():
                return True  # and reading says so
            if waited > 10 * patience or _cpu_seconds(self.process.pid) - before > patience:
                return False
        return True

    def close(self) -> None:
        self.process.kill()
        self.process.join()


def measure(seconds: float, seed: int) -> list[Table]:
    """Draw cases of all targets in turn until the time is over."""
    names = [target.name for target in targets()]
    counts: dict[str, Counter[str]] = {name: Counter() for name in names}
    child = Child(seed)
    started, number = time.perf_counter(), -1
    while number < 1 or time.perf_counter() - started < seconds:
        for name in names:
            for text, outcome in child.ask(name, number):
                counts[name][outcome.kind] += 1
                counts[name]["warned"] += outcome.warned
                if outcome.kind == "failure":
                    print(f"{name}: {text}: {outcome.text}", file=sys.stderr, flush=True)
        number += 1
    child.close()
    return [_table(counts)]


def _table(counts: dict[str, Counter[str]]) -> Table:
    columns = ("named error", "result", "warned", "failure")
    rows = [
        (name, sum(found[kind] for kind in OUTCOMES), *(found[key] for key in columns))
        for name, found in counts.items()
    ]
    rows.append(("all", *(sum(row[i] for row in rows) for i in range(1, len(rows[0])))))
    return Table(
        title="Invalid arguments",
        text=(
            "Each case replaces one or two valid arguments by random ones: NaN, infinite, too "
            "large and too small numbers, other dtypes, shapes, ranks and memory layouts, empty "
            "and masked arrays, objects, strings, None. All arrays are also passed once in another "
            "memory layout with the same values. *Errors* are a TypeError, ValueError or "
            "ImportError whose message names a replaced argument. *Results* are finite and within "
            "their range (scores may be undefined), and equal to the usual result if the values "
            "are the same. *Warned* counts cases with a warning. *Failures* are crashes, calls of "
            f"more than {PATIENCE:g} seconds or {ROOM >> 30} GB, other errors, errors that name no "
            "argument, NaN, bare floating-point warnings, and modified arguments."
        ),
        columns=("callable", "cases", "errors", "results", "warned", "failures"),
        rows=tuple(rows),
    )


def main(names: list[str], n_cases: int = 200, seed: int = 0) -> None:
    """Run cases in this process and print failures; a crash ends it."""
    for target in targets():
        if names and not any(name in target.name for name in names):
            continue
        started = time.perf_counter()
        bad = [(text, o) for text, o in judge_same(target) if o.kind == "failure"]
        for number in range(n_cases):
            given, changed = case(target, number, seed)
            outcome = judge(target, given)
            if outcome.kind == "failure":
                bad.append((f"{number} {changed}", outcome))
        print(f"## {target.name}: {len(bad)} failures, {time.perf_counter() - started:.1f} s")
        for text, outcome in bad:
            print(f"   {text}: {outcome.text}")


if __name__ == "__main__":
    main(sys.argv[1:])
