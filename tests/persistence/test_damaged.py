"""A damaged or malicious model file is refused without a crash, a hang or full memory."""

import os
import subprocess
import sys

import numpy as np
import pytest

from hybridseg import DenseCRF, load, save
from tests.persistence.archives_made import path_for, rewritten
from tests.subjects import deep, halves

X, Y = halves()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m["networks"].append(3),
        lambda m: m["networks"][0].update(kind="x"),
        lambda m: m["networks"][0].update(lr="x"),
        lambda m: m["networks"][0].update(history=[3]),
        lambda m: m["networks"][0].update(frozen=None),
        lambda m: m.update(networks={}),
        lambda m: m.update(versions=[]),
    ],
)
def test_manifests_that_say_otherwise(tmp_path, change):
    path = save(deep(max_epochs=1).fit(X, Y), path_for(tmp_path))
    with pytest.raises(ValueError, match=r"model\.hybridseg"):
        load(rewritten(path, change))


KILLED = """
import os, signal, sys
import hybridseg
from hybridseg import DenseCRF
os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
hybridseg.save(DenseCRF(), sys.argv[1])
"""


@pytest.mark.skipif(os.name == "nt", reason="processes end in other ways")
def test_files_of_a_killed_save_are_removed_by_the_next(tmp_path):
    path = save(DenseCRF(n_iter=7), path_for(tmp_path))
    save(DenseCRF(), tmp_path / "model.hybridseg.other")
    done = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert done.returncode == -9
    assert load(path).n_iter == 7
    left = [found for found in os.listdir(tmp_path) if found.endswith(".draft")]
    assert len(left) == 1
    save(DenseCRF(), tmp_path / "model.hybridseg.other")
    assert (tmp_path / left[0]).exists()  # the draft of another file
    save(DenseCRF(n_iter=8), path)
    assert sorted(os.listdir(tmp_path)) == ["model.hybridseg", "model.hybridseg.other"]
    assert load(path).n_iter == 8


def test_a_file_reaches_the_disk_before_its_name(tmp_path, monkeypatch):
    done = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: done.append("sync") or sync(handle))
    monkeypatch.setattr(os, "replace", lambda *names: done.append("name") or replace(*names))
    save(DenseCRF(), path_for(tmp_path))
    assert done[:2] == ["sync", "name"]
    assert os.name == "nt" or done == ["sync", "name", "sync"]  # the last sync is for the directory


@pytest.mark.skipif(sys.platform != "linux", reason="bounds memory as Linux does")
def test_changed_files_never_fail(tmp_path):
    model_files = pytest.importorskip("benchmarks.reliability.model_files")
    pytest.importorskip("torch")
    files = model_files.write_models(tmp_path)
    counts = model_files.run(files, np.random.default_rng(0), tmp_path, seconds=600, at_most=60)
    assert counts.total() > 50  # some changes have no effect
    failed = {key: n for key, n in counts.items() if key[1] == "failed"}
    assert not failed
