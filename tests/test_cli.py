import logging
import os
import subprocess
import sys

import pytest

import hybridseg
from hybridseg import demo
from hybridseg.cli import main
from hybridseg.report import Experiment, Row

RECORD = Experiment(
    title="Run",
    protocol=("Something.",),
    rows=(
        Row("Forest", "", 0.5, 0.25, 1.0, 1.0, 0.0),
        Row("Forest", "DenseCRF", 0.4, 0.5, 1.0, 1.0, 1.0),
    ),
    averaging="mean over 1 photograph",
    images=(),
)


@pytest.fixture
def runs(monkeypatch):
    """The recorded arguments of the experiment, which does not run."""
    calls = []

    def run(source, settings, **options):
        options.pop("progress")(1, 1, "all")
        calls.append((source, settings, options))
        return RECORD

    monkeypatch.setattr(demo, "run_photos", run)
    monkeypatch.setattr(demo, "run_folder", run)
    return calls


def test_demo_prints_the_table_and_writes_the_page(runs, tmp_path, capsys):
    target = tmp_path / "page.html"
    assert main(["demo", "--out", str(target), "--photos", "coffee", "--seed", "3"]) == 0
    printed = capsys.readouterr()
    assert "0.500*" in printed.out
    assert "-0.100" in printed.out
    assert "Forest + DenseCRF does not beat Forest alone in mean IoU" in printed.out
    assert str(target) in printed.out
    assert printed.err == ""  # no progress outside a terminal
    assert target.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    photos, settings, _ = runs[0]
    assert photos.names == ["coffee"]
    assert settings.seed == 3


def test_demo_on_a_folder_passes_the_limit(runs, tmp_path):
    out = ["--out", str(tmp_path / "r.html")]
    assert main(["demo", "--data", str(tmp_path), "--limit", "5", "--jobs", "2", *out]) == 0
    source, settings, options = runs[0]
    assert (source, settings.n_jobs, options) == (tmp_path, 2, {"limit": 5})


def make_folder(root, splits):
    (root / "images").mkdir(parents=True)
    (root / "images" / "a.npy").touch()
    for split in splits:
        (root / f"{split}.txt").write_text("a\n")
    return root


def one_line(capsys):
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("hybridseg: ")
    return printed.err


def test_a_folder_that_is_not_there(tmp_path, capsys):
    target = tmp_path / "r.html"
    assert main(["demo", "--data", str(tmp_path / "none"), "--out", str(target)]) == 2
    assert "none" in one_line(capsys)
    assert not target.exists()


def test_a_missing_split(tmp_path, capsys):
    root = make_folder(tmp_path / "data", ["train"])
    (root / "labels").mkdir()
    (root / "labels" / "a.npy").touch()
    target = tmp_path / "r.html"
    assert main(["demo", "--data", str(root), "--out", str(target)]) == 2
    assert "test.txt" in one_line(capsys)
    assert not target.exists()


def test_an_unknown_photograph(tmp_path, capsys):
    assert main(["demo", "--photos", "nessie", "--out", str(tmp_path / "r.html")]) == 2
    assert "nessie" in one_line(capsys)


def test_a_place_that_cannot_be_written_is_noticed_first(runs, tmp_path, capsys):
    assert main(["demo", "--out", str(tmp_path / "no" / "r.html")]) == 2
    assert "no folder" in one_line(capsys)
    assert main(["demo", "--out", str(tmp_path)]) == 2
    assert "is a folder" in one_line(capsys)
    assert runs == []


@pytest.mark.parametrize("kind", [ValueError, ImportError])  # a package is missing
def test_a_failing_run_leaves_no_page(kind, monkeypatch, tmp_path, capsys):
    def failing(*given, **options):
        raise kind("the images\nare gone")

    monkeypatch.setattr(demo, "run_photos", failing)
    target = tmp_path / "r.html"
    assert main(["demo", "--photos", "coffee", "--out", str(target)]) == 2
    assert one_line(capsys) == "hybridseg: the images are gone\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required"),
        (["demo", "--data", "x", "--photos", "y"], "not allowed with"),
        (["demo", "--limit", "0"], "0 is below 1"),
        (["demo", "--seed", "x"], "invalid int"),
    ],
)
def test_wrong_arguments_are_a_usage_error(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert message in capsys.readouterr().err


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "hybridseg", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"hybridseg {hybridseg.__version__}\n"
    code = "import sys, hybridseg.cli; assert not {'torch', 'numba', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_the_library_logs_is_a_line_of_the_command(monkeypatch, tmp_path, capsys):
    logger = logging.getLogger("hybridseg")
    before = logger.level, logger.handlers[:]

    def run(photos, settings, progress):
        logger.info("compiling kernels")
        logger.debug("nobody needs this")
        return RECORD

    monkeypatch.setattr(demo, "run_photos", run)
    out = ["--photos", "coffee", "--out", str(tmp_path / "r.html")]
    assert main(["demo", *out]) == 0
    assert capsys.readouterr().err == "hybridseg: compiling kernels\n"
    assert main(["demo", "--quiet", *out]) == 0
    assert capsys.readouterr().err == ""
    assert (logger.level, logger.handlers) == before
