"""What reading shares: one error, one bound, quiet decoders, upright images."""

import gzip
import logging
import threading
import warnings

import numpy as np
import pytest
from PIL import Image, ImageOps

from hybridseg.files.reading import (
    MAX_UNPACKED_BYTES,
    UnreadableFileError,
    check_size,
    check_values,
    documented_errors,
    max_unpacked_bytes,
    positive_spacing,
    swaps_sides,
    turned,
    unpacked,
)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(b"x" * 100)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2)])
def test_images_stand_as_pillow_puts_them(rng, orientation, shape):
    array = rng.integers(0, 256, shape, dtype=np.uint8)
    planes = np.atleast_3d(array)
    expected = []
    for plane in np.moveaxis(planes, -1, 0):
        pillow_image = Image.fromarray(plane.copy())
        pillow_image.getexif()[274] = orientation
        expected.append(np.asarray(ImageOps.exif_transpose(pillow_image)))
    found = turned(array, orientation)
    np.testing.assert_array_equal(np.atleast_3d(found), np.stack(expected, axis=-1))
    assert swaps_sides(orientation) == (found.shape[:2] != array.shape[:2])


def test_whatever_a_decoder_raises_is_one_error(file):
    for raised in (ValueError("bad\n  header."), KeyError("x"), RecursionError(), EOFError("")):
        with (
            pytest.raises(UnreadableFileError, match=r"a\.dat cannot be read as a map: "),
            documented_errors(file, "a map"),
        ):
            raise raised
    with (
        pytest.raises(UnreadableFileError, match="cannot be read: not allowed"),
        documented_errors(file, "a map"),
    ):
        raise PermissionError(13, "not allowed")
    with (
        pytest.raises(UnreadableFileError, match="needs more memory"),
        documented_errors(file, "a map"),
    ):
        raise MemoryError
    for passed in (FileNotFoundError("gone"), UnreadableFileError("said already")):
        with pytest.raises(type(passed), match=str(passed)), documented_errors(file, "a map"):
            raise passed
    assert issubclass(UnreadableFileError, OSError)
    assert issubclass(UnreadableFileError, ValueError)


def test_decoders_are_quiet_in_readers_and_heard_elsewhere(file, caplog):
    log = logging.getLogger("tifffile")
    heard = []

    def say():
        log.warning("elsewhere")
        heard.append(True)

    with caplog.at_level(logging.WARNING):
        with documented_errors(file, "a map"):
            with documented_errors(file, "a map"):  # within another
                log.warning("inside")
            log.warning("inside")
            other = threading.Thread(target=say)
            other.start()
            other.join()
        log.warning("after")
    assert heard
    assert [record.message for record in caplog.records] == ["elsewhere", "after"]
    before = list(warnings.filters)
    with documented_errors(file, "a map"):
        assert warnings.filters != before
    assert warnings.filters == before


def test_the_bound_is_the_environments_or_the_constant(monkeypatch):
    monkeypatch.delenv("HYBRIDSEG_MAX_UNPACKED_BYTES", raising=False)
    assert max_unpacked_bytes() == MAX_UNPACKED_BYTES
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "1")
    assert max_unpacked_bytes() == 1
    for bad in ("0", "-1", "1e9", ""):
        monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", bad)
        with pytest.raises(ValueError, match="expected a whole number of bytes above 0"):
            max_unpacked_bytes()


def test_no_file_states_more_than_it_can_hold_or_than_the_bound(file, monkeypatch):
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "1000")
    check_size(file, 1000)
    check_size(file, 300, ratio=3)
    with pytest.raises(UnreadableFileError, match="more than the bound of 1000"):
        check_size(file, 1001)
    with pytest.raises(UnreadableFileError, match="is cut short: its header states 301 bytes"):
        check_size(file, 301, ratio=3)
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "10")
    check_size(file, 100)  # its own size is always allowed
    with pytest.raises(UnreadableFileError, match="more than the bound of 100"):
        check_size(file, 101)


def test_values_are_numbers_of_an_image(file):
    for dtype in (bool, np.uint8, ">i2", np.float16):
        array = np.zeros((2, 3), dtype)
        found = check_values(array, file)
        assert found.dtype.isnative
        np.testing.assert_array_equal(found, array)
    for dtype, cure in (
        (complex, "real part"),
        ("V3", "fields"),
        (object, "pickle"),
        ("U2", "num"),
    ):
        with pytest.raises(UnreadableFileError, match=f"holds values of dtype .*{cure}"):
            check_values(np.zeros((2, 3), dtype), file)
    for shape in ((3,), (0, 4), (1, 1, 1, 1, 1)):
        with pytest.raises(UnreadableFileError, match="holds an array of shape"):
            check_values(np.zeros(shape), file)


def test_a_spacing_is_of_positive_numbers_or_none():
    assert positive_spacing([1, "2.5", -3]) == (1.0, 2.5, 3.0)
    for bad in ([0, 1], [np.nan, 1], [np.inf, 1], [None, 1], ["x", 1]):
        assert positive_spacing(bad) is None


def test_a_packed_file_ends_where_it_says(tmp_path, monkeypatch):
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"0123456789" * 100))
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "990")
    with unpacked(path) as stream:
        assert stream.read(10) == b"0123456789"
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", "989")
    with (
        pytest.raises(UnreadableFileError, match="unpacks to more than its header states"),
        unpacked(path) as stream,
    ):
        stream.read(10)
    path.write_bytes(path.read_bytes()[:-4] + b"0000")  # the checksum is reached on leaving
    with pytest.raises(gzip.BadGzipFile, match="length"), unpacked(path) as stream:
        stream.read(1)
