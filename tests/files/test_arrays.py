"""NumPy's files: numbers only, read lazily, never unpickled."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hybridseg import Scene
from hybridseg.datasets import UnreadableFileError, read_image, read_labels
from hybridseg.files.arrays import map_npy

REFUSED = {
    "complex": (np.ones((3, 4), complex), r"dtype complex128; expected .*real part"),
    "text": (np.array([["a", "b"]]), r"dtype <U1; expected"),
    "fields": (np.zeros((3, 4), [("a", "f4")]), r"separate arrays"),
    "objects": (np.array([[1, None]], object), r"objects? .*|dtype object.*pickle"),
    "dates": (np.zeros((3, 4), "M8[s]"), r"dtype datetime64"),
    "nothing": (np.zeros((0, 4)), r"shape \(0, 4\); expected"),
    "number": (np.float64(3), r"shape \(\); expected"),
    "row": (np.zeros(5), r"shape \(5,\); expected"),
    "many_axes": (np.zeros((2, 2, 2, 2, 2)), r"shape \(2, 2, 2, 2, 2\); expected"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("ending", ["npy", "npz"])
def test_what_is_no_image_is_refused(tmp_path, kind, ending):
    array, match = REFUSED[kind]
    path = tmp_path / f"{kind}.{ending}"
    if ending == "npy":
        np.save(path, array, allow_pickle=True)
    else:
        np.savez(path, array)
    for read in (read_image, read_labels):
        with pytest.raises(UnreadableFileError, match=rf"{kind}\.{ending} .*{match}"):
            read(path)


@pytest.mark.parametrize("kind", ["complex", "text", "fields", "objects", "dates"])
def test_a_scene_refuses_them_as_well(tmp_path, kind):
    path = tmp_path / f"{kind}.npy"
    np.save(path, REFUSED[kind][0], allow_pickle=True)
    with pytest.raises(UnreadableFileError, match=rf"{kind}\.npy holds values of dtype"):
        assert Scene(path).image is not None


def test_a_scene_leaves_an_array_on_disk(rng, tmp_path):
    array = rng.random((5, 6))
    np.save(tmp_path / "a.npy", array)
    read = Scene(tmp_path / "a.npy").image
    assert isinstance(read.base, np.memmap)
    assert_array_equal(read, array)
    np.save(tmp_path / "b.npy", array.astype(">f8"))
    swapped = Scene(tmp_path / "b.npy").image
    assert_array_equal(swapped, array)
    assert swapped.dtype.isnative


def test_an_archive_of_one_array(rng, tmp_path):
    array = rng.random((5, 6))
    np.savez_compressed(tmp_path / "a.npz", array)
    assert_array_equal(read_image(tmp_path / "a.npz"), array)
    assert_array_equal(Scene(tmp_path / "a.npz").image, array)
    np.savez(tmp_path / "b.npz", image=array, labels=array)
    with pytest.raises(UnreadableFileError, match=r"b\.npz holds 2 arrays \(image, labels\)"):
        read_image(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz")
    with pytest.raises(UnreadableFileError, match=r"c\.npz holds 0 arrays \(none\); expected one"):
        read_image(tmp_path / "c.npz")


def test_labels_that_do_not_fit(tmp_path):
    for array in (np.array([[2**31]]), np.array([[2**64 - 1]], np.uint64), np.array([[1e12]])):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UnreadableFileError, match=r"a\.npy holds labels above 2\*\*31 - 1"):
            read_labels(tmp_path / "a.npy")
    signaling = np.array([[0x7FA00000]], np.uint32).view(np.float32)
    for array in (np.array([[np.nan]]), signaling, np.array([[np.inf]]), np.array([[0.5]])):
        np.save(tmp_path / "a.npy", array)
        with pytest.raises(UnreadableFileError, match=r"a\.npy holds fractions"):
            read_labels(tmp_path / "a.npy")
    np.save(tmp_path / "a.npy", np.array([[-(2**40), 5]]))
    assert_array_equal(read_labels(tmp_path / "a.npy"), [[-1, 5]])


def packed(array, version=(1, 0)):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version)
    return stream.getvalue()


def test_an_array_that_is_cut_short_is_refused(rng, tmp_path):
    path, content = tmp_path / "a.npy", packed(rng.random((5, 6)))
    path.write_bytes(content)
    assert map_npy(path).shape == read_image(path).shape == (5, 6)
    path.write_bytes(content[:-1])
    for read in (read_image, map_npy):
        with pytest.raises(
            UnreadableFileError,
            match=r"a\.npy is cut short: .* float64 needs 240 bytes, but the file holds 239",
        ):
            read(path)


def test_an_archive_whose_array_is_longer_than_stated_is_refused(rng, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("image.npy", packed(rng.random((5, 6))) + b"!")
    with pytest.raises(UnreadableFileError, match="holds more bytes than its header states"):
        read_image(tmp_path / "a.npz")


def test_an_empty_array_is_mapped_as_one(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 4)))
    assert map_npy(tmp_path / "a.npy").shape == (0, 4)


def test_headers_that_no_array_of_numbers_has_are_refused(rng, tmp_path):
    path = tmp_path / "a.npy"
    array = rng.random((5, 6))
    path.write_bytes(packed(array, (2, 0)))
    assert_array_equal(read_image(path), array)
    path.write_bytes(packed(array, (3, 0)))
    with pytest.raises(UnreadableFileError, match=r"has the \.npy version \(3, 0\)"):
        read_image(path)
    path.write_bytes(packed(np.zeros((25, 6))).replace(b"(25, 6)", b"(-5, 6)"))
    with pytest.raises(UnreadableFileError, match=r"shape \(-5, 6\); expected sides >= 0"):
        read_image(path)
