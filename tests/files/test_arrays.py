"""NumPy's files: numbers only, read lazily, never unpickled."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from hybridseg import Scene
from hybridseg.datasets import UnreadableFileError, read_image, read_labels

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
def test_what_is_no_picture_is_refused(tmp_path, kind, ending):
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
