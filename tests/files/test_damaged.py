"""Whatever is wrong with a file, one documented error names it, and memory stays bounded."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import threading
import tracemalloc
import warnings

import numpy as np
import pytest
from PIL import Image

from hybridseg import Scene
from hybridseg.datasets import UnreadableFileError, read_image, read_labels
from hybridseg.files.images import SUFFIXES
from hybridseg.files.reading import documented_errors, max_unpacked_bytes

pytest.importorskip("nibabel", reason="one of the formats needs it")
pytest.importorskip("imagecodecs", reason="one of the formats needs it")

from benchmarks.reliability.image_files import damage, make_bombs, make_files
from benchmarks.reliability.images import outcome_of


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return [path for paths in make_files(folder).values() for path in paths]


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    return make_bombs(tmp_path_factory.mktemp("bombs"), side=4000)


@pytest.mark.filterwarnings("ignore:.*(is a JPEG|palette of grays)")
def test_damage_is_read_or_refused(files, tmp_path):
    """A slice of ``python -m benchmarks reliability --only images``."""
    rng = np.random.default_rng(11)
    seen = set()
    for source in files:
        for _ in range(6):
            way, content = damage(source.read_bytes(), rng)
            path = tmp_path / source.name
            path.write_bytes(content)
            outcome, detail = outcome_of(path)
            assert outcome in ("read", "refused"), (source.name, way, detail)
            seen.add(outcome)
    assert seen == {"read", "refused"}


def test_bombs_are_refused_before_they_go_off(bombs, monkeypatch):
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", str(2**20))
    assert len(bombs) > 12
    for path in bombs:
        tracemalloc.start()
        with pytest.raises(UnreadableFileError, match=path.name):
            read_image(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2**24, path.name


def test_the_bound_can_be_set(tmp_path, monkeypatch):
    Image.new("L", (300, 300)).save(tmp_path / "a.png")
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "89999")
    with pytest.raises(
        UnreadableFileError, match=r"unpack to 90000 bytes.*HYBRIDSEG_MAX_UNPACKED_BYTES=90000"
    ):
        read_image(tmp_path / "a.png")
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "90000")
    assert read_image(tmp_path / "a.png").shape == (300, 300)
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "2 GB")
    with pytest.raises(ValueError, match="HYBRIDSEG_MAX_UNPACKED_BYTES='2 GB'; expected a whole"):
        max_unpacked_bytes()


def test_a_file_may_be_as_large_as_it_is(tmp_path, monkeypatch):
    """The bound is on unpacking: what lies in the file as it is needs none."""
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "1000")
    np.save(tmp_path / "a.npy", np.zeros((100, 100)))
    assert read_image(tmp_path / "a.npy").shape == (100, 100)
    Image.new("L", (100, 100)).save(tmp_path / "a.bmp")
    assert read_image(tmp_path / "a.bmp").shape == (100, 100)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("content", [b"", b"\0", b"no image at all", b"\0" * 1000])
def test_what_is_no_image(tmp_path, suffix, content):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    for read in (read_image, read_labels, lambda p: Scene(p).image):
        with pytest.raises(UnreadableFileError, match=r"a\."):
            read(path)


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".xyz", ""])
def test_missing_files_and_folders(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    for read in (read_image, read_labels, lambda p: Scene(p).image):
        with pytest.raises(FileNotFoundError, match=f"a{suffix}"):
            read(path)
    path.mkdir()
    for read in (read_image, read_labels, lambda p: Scene(p).image):
        with pytest.raises(UnreadableFileError, match=f"a{suffix}"):
            read(path)


def test_odd_names(tmp_path):
    for name in ("x" * 300 + ".png", "a\0.png"):
        with pytest.raises((UnreadableFileError, FileNotFoundError), match=r"\.png"):
            read_image(tmp_path / name)
    if not hasattr(os, "mkfifo"):
        return
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableFileError, match="a device or a pipe"):
        read_image(tmp_path / "a.png")


def test_rights(tmp_path):
    path = tmp_path / "a.png"
    Image.new("L", (3, 3)).save(path)
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UnreadableFileError, match=r"a\.png cannot be read"):
        read_image(path)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("x"),
        RecursionError(),
        MemoryError(),
        EOFError(),
        SyntaxError("bad"),
        OverflowError(),
    ],
)
def test_every_error_of_a_decoder_becomes_one(tmp_path, error):
    def decode():
        with documented_errors(tmp_path / "a.png", "an image"):
            raise error

    with pytest.raises(UnreadableFileError, match=r"a\.png") as caught:
        decode()
    assert isinstance(caught.value, OSError)
    assert isinstance(caught.value, ValueError)
    again = pickle.loads(pickle.dumps(caught.value))
    assert str(again) == str(caught.value)


def test_an_interrupt_stays_one(tmp_path):
    def decode():
        with documented_errors(tmp_path / "a.png", "an image"):
            raise KeyboardInterrupt("stop")

    with pytest.raises(KeyboardInterrupt, match="stop"):
        decode()


def test_decoders_are_quiet_and_leave_the_filters(files, tmp_path, caplog, capfd):
    before = list(warnings.filters)

    def read_all():
        rng = np.random.default_rng(5)
        for source in files:
            path = tmp_path / f"{threading.get_ident()}-{source.name}"
            path.write_bytes(damage(source.read_bytes(), rng)[1])
            with contextlib.suppress(UnreadableFileError):
                read_image(path)

    with caplog.at_level(logging.WARNING):
        threads = [threading.Thread(target=read_all) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert warnings.filters == before
    assert [record.name for record in caplog.records] == []
    assert capfd.readouterr().err == ""
