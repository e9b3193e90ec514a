"""Label maps come back from every format, in the smallest numbers, or are refused by name."""

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.datasets import read_image, read_labels, write_labels

SIGNED = (".tif", ".tiff", ".npy", ".nii", ".nii.gz")


@pytest.fixture(params=[".png", *SIGNED])
def suffix(request):
    if request.param.startswith(".nii"):
        pytest.importorskip("nibabel")
    return request.param


@pytest.mark.parametrize("most", [1, 254, 255, 256, 65535])
def test_labels_come_back(tmp_path, suffix, most):
    labels = np.array([[0, 1, most], [most - 1, 0, -1]])
    void = 255 if most < 254 else 7
    write_labels(tmp_path / f"a{suffix}", labels, ignore_label=void)
    found = read_labels(tmp_path / f"a{suffix}", ignore_label=void)
    np.testing.assert_array_equal(found, labels)


@pytest.mark.parametrize(("most", "n_bytes"), [(255, 1), (256, 2)])
def test_the_numbers_stored_are_the_smallest(tmp_path, suffix, most, n_bytes):
    write_labels(tmp_path / f"a{suffix}", np.array([[0, most]]))
    assert read_image(tmp_path / f"a{suffix}").dtype.itemsize == n_bytes


def test_volumes_come_back_but_not_from_png(tmp_path, suffix, rng):
    labels = rng.integers(-1, 4, (3, 4, 5))
    path = tmp_path / f"a{suffix}"
    if suffix == ".png":
        with pytest.raises(ValueError, match="a PNG has two axes"):
            write_labels(path, labels)
        assert not path.exists()
    else:
        write_labels(path, labels)
        np.testing.assert_array_equal(read_labels(path, ignore_label=255), labels)


def test_a_negative_void_needs_no_name(tmp_path, suffix):
    path, labels = tmp_path / f"a{suffix}", np.array([[0, -5], [3, 255]])
    if suffix == ".png":
        with pytest.raises(ValueError, match="a PNG cannot hold negative numbers"):
            write_labels(path, labels, ignore_label=-1)
    else:
        write_labels(path, labels, ignore_label=-1)
        np.testing.assert_array_equal(read_labels(path), [[0, -1], [3, 255]])


def test_void_and_a_class_are_never_written_alike(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    with pytest.raises(ValueError, match="both void pixels and the class 255"):
        write_labels(path, np.array([[-1, 255]]))
    assert not path.exists()
    write_labels(path, np.array([[0, 255]]))  # nothing is void
    np.testing.assert_array_equal(read_labels(path), [[0, 255]])


def test_what_cannot_be_written_is_refused(tmp_path):
    ones = np.ones((2, 3), int)
    with pytest.raises(ValueError, match=r"has the ending '\.jpg'; expected \.png"):
        write_labels(tmp_path / "a.jpg", ones)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        write_labels(tmp_path / "no" / "a.png", ones)
    with pytest.raises(ValueError, match="a.png can hold labels below 65536"):
        write_labels(tmp_path / "a.png", 65536 * ones)
    with pytest.raises(ValueError, match="a.npy can hold labels below 2147483648"):
        write_labels(tmp_path / "a.npy", 2**31 * ones)
    with pytest.raises(TypeError, match="labels has dtype float64"):
        write_labels(tmp_path / "a.png", 1.0 * ones)
    for shape in ((3,), (0, 3), (1, 1, 1, 1)):
        with pytest.raises(ValueError, match="labels have shape"):
            write_labels(tmp_path / "a.npy", np.ones(shape, int))
    with pytest.raises(TypeError, match="ignore_label=1.5"):
        write_labels(tmp_path / "a.png", ones, ignore_label=1.5)
    with pytest.raises(TypeError, match="like is a int; expected the image's path or a Scene"):
        write_labels(tmp_path / "a.png", ones, like=3)
    assert list(tmp_path.iterdir()) == []


def test_labels_have_the_shape_of_their_image(tmp_path):
    ones = np.ones((2, 3), int)
    scene = Scene(np.zeros((2, 3, 4)))
    write_labels(tmp_path / "a.png", ones, like=scene)
    write_labels(tmp_path / "b.png", ones, like=tmp_path / "a.png")
    for like in (Scene(np.zeros((3, 2))), tmp_path / "a.png"):
        with pytest.raises(ValueError, match="expected the same shape"):
            write_labels(tmp_path / "c.png", np.ones((3, 3), int), like=like)


def test_the_image_of_labels_may_be_of_any_format(tmp_path, suffix):
    labels = np.array([[0, 1, 2], [2, 1, 0]])
    images = {"a.npy": np.zeros((2, 3, 5)), "a.npz": np.zeros((2, 3))}
    np.save(tmp_path / "a.npy", images["a.npy"])
    np.savez(tmp_path / "a.npz", images["a.npz"])
    for name, image in images.items():
        for like in (tmp_path / name, Scene(tmp_path / name), Scene(image)):
            write_labels(tmp_path / f"b{suffix}", labels, like=like)
            np.testing.assert_array_equal(read_labels(tmp_path / f"b{suffix}"), labels)


@pytest.mark.parametrize(("name", "packed"), [("a.nii", False), ("a.nii.gz", True)])
def test_niftis_are_packed_as_their_ending_says(tmp_path, name, packed):
    pytest.importorskip("nibabel")
    write_labels(tmp_path / name, np.array([[0, 1]]))
    assert (tmp_path / name).read_bytes().startswith(b"\x1f\x8b") == packed
