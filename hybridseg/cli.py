"""The command line, ``hybridseg``."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hybridseg.version import __version__

if TYPE_CHECKING:
    from hybridseg.report import Experiment

#: The exit code for errors that the user can correct. Python uses 1 for uncaught errors.
USAGE_ERROR = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    arguments : sequence of str, optional
        The arguments without the name of the program. Default: those of the process.

    Returns
    -------
    int
        The exit code: 0, or 2 if an argument or a data set cannot be used.

    Examples
    --------
    >>> from hybridseg.cli import main
    >>> main(["demo", "--photos", "coffee", "--out", "report.html"])  # doctest: +SKIP
    0
    """
    given = _parser().parse_args(arguments)
    try:
        _demo(given)
    except (ImportError, OSError, ValueError) as error:
        print(f"hybridseg: {_one_line(error)}", file=sys.stderr)
        return USAGE_ERROR
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hybridseg", description="Classical, deep and hybrid image segmentation."
    )
    parser.add_argument("--version", action="version", version=f"hybridseg {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command")
    demo = commands.add_parser(
        "demo",
        help="compare classical, deep and hybrid segmentation on photographs or a data set",
        description="Learn real photographs from a few scribbles, with two forests and a small "
        "network, each alone, with a dense CRF and with a graph cut. Print a table and write a "
        "page with the images.",
    )
    demo.add_argument(
        "--out", type=Path, default=Path("report.html"), metavar="FILE", help="default: %(default)s"
    )
    source = demo.add_mutually_exclusive_group()
    source.add_argument(
        "--photos", nargs="+", metavar="NAME", help="some of the bundled photographs; default: all"
    )
    source.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="a data set: images/, labels/, train.txt, test.txt and, optionally, classes.json",
    )
    demo.add_argument(
        "--limit",
        type=_at_least_one,
        default=24,
        metavar="N",
        help="with --data: at most N images of each split (default: %(default)s)",
    )
    demo.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    demo.add_argument(
        "--jobs", type=int, default=-1, metavar="N", help="number of cores; default: all"
    )
    demo.add_argument("--quiet", action="store_true", help="show no progress")
    return parser


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is below 1; expected an integer >= 1")
    return number


def _demo(given: argparse.Namespace) -> None:
    _check_target(given.out)
    from hybridseg.report import shortfalls, text_table, verdict, write_report

    experiment = _run_demo(given)
    written = write_report(experiment, given.out)
    print(text_table(experiment))
    print(f"({experiment.averaging}; * best; changes are against the unary alone; seconds)\n")
    for sentence in (verdict(experiment), *shortfalls(experiment), *experiment.remarks):
        print(sentence)
    print(f"\nThe images are in {written}")


def _check_target(target: Path) -> None:
    """Raise now if the page cannot be written, and not after minutes of work."""
    if target.is_dir():
        raise IsADirectoryError(f"--out {target} is a folder; expected the name of a file.")
    if not target.absolute().parent.is_dir():
        raise FileNotFoundError(f"--out {target}: there is no folder {target.parent}.")
    if not os.access(target.absolute().parent, os.W_OK):
        raise PermissionError(f"--out {target}: the folder {target.parent} cannot be written.")


def _run_demo(given: argparse.Namespace) -> Experiment:
    from tqdm import tqdm

    from hybridseg.datasets import load_photos
    from hybridseg.demo import DemoSettings, run_folder, run_photos

    options = {"seed": given.seed, "n_jobs": given.jobs}
    hidden = given.quiet or not sys.stderr.isatty()

    def tell(line: str) -> None:
        if not given.quiet:
            tqdm.write(line, file=sys.stderr)

    with tqdm(disable=hidden, unit="step", desc="first calls") as bar, _logging_to(tell):

        def progress(done: int, total: int, what: str) -> None:
            bar.total = total
            bar.set_description(what, refresh=False)
            bar.update(done - bar.n)

        if given.data is not None:
            settings = DemoSettings.for_folder(**options)
            return run_folder(given.data, settings, limit=given.limit, progress=progress)
        return run_photos(load_photos(given.photos), DemoSettings(**options), progress=progress)


@contextmanager
def _logging_to(tell: Callable[[str], None]) -> Iterator[None]:
    """Pass log messages of the library, such as that kernels are compiled, to ``tell``."""

    class Teller(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tell(f"hybridseg: {record.getMessage()}")

    logger, teller = logging.getLogger("hybridseg"), Teller(logging.INFO)
    before = logger.level
    logger.addHandler(teller)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(teller)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
