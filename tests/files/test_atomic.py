"""Whatever the library writes is there whole or not at all, and no draft stays for good."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from hybridseg import DenseCRF, Scene, save
from hybridseg.datasets import write_labels
from hybridseg.files import atomic
from hybridseg.files.atomic import atomic_write
from hybridseg.persistence.archives import write_archive
from hybridseg.report import Experiment, Row, write_report


def archive(path, number):
    write_archive(path, {"number": bytes([number])})


def model(path, number):
    save(DenseCRF(n_iter=number), path)


def labels(path, number):
    write_labels(path, np.full((3, 4), number))


def costs(path, number):
    Scene(np.zeros((3, 4)), unary=np.full((3, 4, 2), float(number))).store_costs(path)


def report(path, number):
    rows = (Row("Forest", "", number / 4, 0.5, 1.0, 0.25, 0.0),)
    write_report(Experiment("Title", (), rows, "", ()), path)


def checkpoint(path, number):
    torch = pytest.importorskip("torch")
    from hybridseg.deep.training.checkpoint import Checkpoint

    stateful = SimpleNamespace(state_dict=lambda: {"number": torch.tensor(number)})
    callbacks = {
        "schedule": SimpleNamespace(lr_scheduler_=SimpleNamespace(last_epoch=number)),
        "safeguard": SimpleNamespace(kept_=None),
    }
    net = SimpleNamespace(
        callbacks_=list(callbacks.items()),
        history=SimpleNamespace(to_list=list),
        **dict.fromkeys(("module_", "criterion_", "optimizer_", "scaler_"), stateful),
    )
    Checkpoint(path.parent, {}, 0).on_epoch_end(net)


#: All that writes files: by the name of a file, what writes it with a number inside.
WRITERS = {
    "entries.archive": archive,
    "model.hybridseg": model,
    "labels.png": labels,
    "costs.npy": costs,
    "report.html": report,
    "training.pt": checkpoint,
}
every_writer = pytest.mark.parametrize("name", WRITERS)


def kill_every_writer(folder):
    """Let each writer begin in a process of its own, which is killed before the file is whole."""
    for name, write in WRITERS.items():
        process = os.fork()
        if process == 0:
            os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
            try:
                write(Path(folder, name, name), 2)
            finally:
                os._exit(1)  # it was not killed
        os.waitpid(process, 0)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """For each writer a folder with a whole file and what a killed process has left beside it."""
    if not hasattr(os, "fork"):
        pytest.skip("processes end in other ways")
    folder = tmp_path_factory.mktemp("killed")
    for name in WRITERS:
        (folder / name).mkdir()
        (folder / name / name).write_text("whole")
    command = (
        "import sys; from tests.files import test_atomic as t; t.kill_every_writer(sys.argv[1])"
    )
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", command, folder], check=True, cwd=root)
    return folder


@every_writer
def test_what_a_killed_writer_leaves_is_removed_by_the_next(killed, name):
    path = killed / name / name
    if name == "training.pt":
        pytest.importorskip("torch")
    assert path.read_text() == "whole"
    assert len(os.listdir(path.parent)) == 2
    other = path.with_name(f"{name}.other")
    with atomic_write(other):
        pass
    assert len(os.listdir(path.parent)) == 3
    other.unlink()
    WRITERS[name](path, 3)
    assert os.listdir(path.parent) == [name]
    assert path.read_bytes() != b"whole"


@every_writer
def test_a_failure_leaves_the_old_file_and_no_draft(tmp_path, monkeypatch, name):
    path = tmp_path / name
    seen = []

    def full(handle):
        seen.extend(os.listdir(tmp_path))
        raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="no space left"):
            WRITERS[name](path, 1)
    assert len(seen) == 1
    assert os.listdir(tmp_path) == []
    WRITERS[name](path, 2)
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        WRITERS[name](path, 3)
    assert os.listdir(tmp_path) == [name]
    assert path.read_bytes() == before


@every_writer
def test_the_draft_of_a_live_writer_stays(tmp_path, name):
    path = tmp_path / name
    with atomic_write(path) as file:
        file.write(b"mine")
        WRITERS[name](path, 1)
        assert sorted(os.listdir(tmp_path)) == sorted([name, Path(file.name).name])
        assert path.read_bytes() != b"mine"
    assert os.listdir(tmp_path) == [name]
    assert path.read_bytes() == b"mine"


@every_writer
def test_no_folder_is_made(tmp_path, name):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        WRITERS[name](tmp_path / "nowhere" / name, 1)
    assert os.listdir(tmp_path) == []


def test_whatever_ends_the_writing_ends_the_draft(tmp_path):
    with pytest.raises(TypeError, match="bytes"), atomic_write(tmp_path / "a") as file:
        file.write("no bytes")
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed there")
def test_a_draft_that_is_taken_for_a_left_one_is_made_anew(tmp_path, monkeypatch):
    lock, taken = atomic._lock, []

    def late(file, **options):
        if not taken:
            taken.append(file.name)
            os.unlink(file.name)
        lock(file, **options)

    monkeypatch.setattr(atomic, "_lock", late)
    with atomic_write(tmp_path / "a") as file:
        assert file.name not in taken
        file.write(b"whole")
    assert (tmp_path / "a").read_bytes() == b"whole"
    assert os.listdir(tmp_path) == ["a"]


def test_only_drafts_of_the_same_file_are_removed(tmp_path):
    left = ".a.npy.123.0a1b.draft"
    others = [
        ".b.npy.123.0a1b.draft",  # of another file
        ".a.npy.npz.123.0a1b.draft",  # of another file whose name starts with this one
        ".a.npy.123.0a1b.bak",  # of somebody else
        "a.npy.123.0a1b.draft",
    ]
    for name in [left, *others]:
        (tmp_path / name).write_bytes(b"kept")
    with atomic_write(tmp_path / "a.npy") as file:
        file.write(b"new")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*others, "a.npy"])
