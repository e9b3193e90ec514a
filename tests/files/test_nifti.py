"""Volumes: what NiBabel and others write is read; predictions lie where their image lies."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

from hybridseg import DenseCRF, PixelClassifier, Scene
from hybridseg.datasets import (
    UnreadableFileError,
    load_folder,
    read_image,
    read_labels,
    write_labels,
)

nibabel = pytest.importorskip("nibabel")

AFFINE = np.array([[-0.5, 0, 0, 10], [0, 0.8, 0.1, -20], [0, -0.1, 3, 5], [0, 0, 0, 1.0]])


def save(path, voxels, affine=AFFINE, kind=nibabel.Nifti1Image, **header):
    image = kind(voxels, affine)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return nibabel.load(path)


def voxels_of(rng, *shape):
    return rng.integers(-500, 1500, shape).astype(np.int16)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.img", "a.hdr"])
def test_axes_spacing_and_affine(rng, tmp_path, name):
    voxels = voxels_of(rng, 4, 5, 6)
    kind = nibabel.Nifti1Pair if name in ("a.img", "a.hdr") else nibabel.Nifti1Image
    stored = save(tmp_path / name, voxels, kind=kind)
    assert_array_equal(read_image(tmp_path / name), voxels.T)
    scene = Scene(tmp_path / name)
    assert scene.rank == 3
    assert_allclose(scene.spacing, stored.header.get_zooms()[::-1])
    assert_allclose(scene.meta["affine"], stored.affine)
    with pytest.raises(ValueError, match="read-only"):  # all Scenes of the file share it
        scene.meta["affine"][0, 0] = 1


def test_what_a_scene_is_given_comes_first(rng, tmp_path):
    path = tmp_path / "a.nii"
    save(path, voxels_of(rng, 4, 5, 6))
    scene = Scene(path, spacing=(1, 1, 1), meta={"affine": "mine", "name": "a"})
    assert scene.spacing == (1, 1, 1)
    assert scene.meta == {"affine": "mine", "name": "a"}
    assert set(Scene(path, meta={"name": "a"}).meta) == {"affine", "name"}


def test_an_array_in_place_of_the_file_keeps_what_the_file_says(rng, tmp_path):
    save(tmp_path / "a.nii", voxels_of(rng, 4, 5, 6))
    scene = Scene(tmp_path / "a.nii", ignore_label=3)
    changed = scene.replace(image=scene.image / np.float32(7))
    assert changed.spacing == scene.spacing
    assert_array_equal(changed.meta["affine"], scene.meta["affine"])
    assert scene.replace(ignore_label=4).source("spacing") is None


def test_odd_spacing_counts_as_none(rng, tmp_path):
    for bad in (np.nan, np.inf):
        save(tmp_path / "a.nii", voxels_of(rng, 4, 5, 6), pixdim=[1, bad, 1, 1, 0, 0, 0, 0])
        assert Scene(tmp_path / "a.nii").spacing is None


def test_scaling_and_other_numbers(rng, tmp_path):
    voxels = voxels_of(rng, 4, 5, 6)
    image = nibabel.Nifti1Image(voxels, AFFINE)
    image.header.set_slope_inter(0.5, -3)
    content = bytearray(image.to_bytes())
    stored = nibabel.Nifti1Image.from_bytes(bytes(content))
    (tmp_path / "a.nii").write_bytes(bytes(content))
    assert_array_equal(read_image(tmp_path / "a.nii"), np.asanyarray(stored.dataobj).T)
    for dtype in (np.uint8, np.int32, np.float32, np.float64, np.uint16):
        save(tmp_path / "b.nii", voxels.astype(dtype))
        assert read_image(tmp_path / "b.nii").dtype == dtype
    save(tmp_path / "c.nii", voxels, kind=nibabel.Nifti2Image)
    assert_array_equal(read_image(tmp_path / "c.nii"), voxels.T)


def test_further_axes(rng, tmp_path):
    voxels = voxels_of(rng, 2, 3, 4, 5)
    save(tmp_path / "a.nii", voxels)
    assert_array_equal(read_image(tmp_path / "a.nii"), voxels.transpose(2, 1, 0, 3))
    assert len(Scene(tmp_path / "a.nii").spacing) == 3
    with pytest.raises(UnreadableFileError, match=r"four axes .*label map is \(H, W\) or"):
        read_labels(tmp_path / "a.nii")
    save(tmp_path / "b.nii", voxels_of(rng, 2, 3, 4, 1, 3))
    assert read_image(tmp_path / "b.nii").shape == (4, 3, 2, 3)
    save(tmp_path / "c.nii", voxels_of(rng, 2, 3, 4, 2, 3))
    with pytest.raises(UnreadableFileError, match=r"axes of \(2, 3, 4, 2, 3\) voxels"):
        read_image(tmp_path / "c.nii")
    save(tmp_path / "d.nii", np.zeros((2, 3, 4), [("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(UnreadableFileError, match=r"d\.nii holds values of dtype .*fields"):
        read_image(tmp_path / "d.nii")


def test_a_pair_needs_both_files(rng, tmp_path):
    save(tmp_path / "a.img", voxels_of(rng, 4, 5, 6), kind=nibabel.Nifti1Pair)
    for gone in ("a.hdr", "a.img"):
        kept = (tmp_path / gone).read_bytes()
        (tmp_path / gone).unlink()
        there = "a.img" if gone == "a.hdr" else "a.hdr"
        with pytest.raises(UnreadableFileError, match=there):
            read_image(tmp_path / there)
        (tmp_path / gone).write_bytes(kept)


def test_damage_inside_gzip_is_found(rng, tmp_path):
    content = bytearray(gzip.compress(bytes(save_bytes(rng)), 0))  # stored, not deflated
    content[len(content) // 2] ^= 1
    (tmp_path / "a.nii.gz").write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.nii\.gz cannot be read as a NIfTI.*CRC"):
        read_image(tmp_path / "a.nii.gz")
    assert Scene(tmp_path / "a.nii.gz").rank == 3  # the header is read without the voxels


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_what_is_no_nifti_is_said_to_be_none(tmp_path, name):
    content = bytes(400)
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    with pytest.raises(UnreadableFileError, match=rf"{name} is not a NIfTI file"):
        read_image(tmp_path / name)


def save_bytes(rng):
    return nibabel.Nifti1Image(voxels_of(rng, 4, 5, 6), AFFINE).to_bytes()


@pytest.mark.parametrize("name", ["out.nii", "out.nii.gz"])
@pytest.mark.parametrize("as_scene", [False, True])
def test_labels_lie_where_their_image_lies(rng, tmp_path, name, as_scene):
    image = nibabel.Nifti1Image(voxels_of(rng, 4, 5, 6), AFFINE)
    image.set_qform(AFFINE, 1)
    image.set_sform(AFFINE, 2)
    image.header.set_xyzt_units("mm")
    nibabel.save(image, tmp_path / "image.nii.gz")
    labels = rng.integers(-1, 4, (6, 5, 4))
    like = tmp_path / "image.nii.gz"
    write_labels(tmp_path / name, labels, like=Scene(like) if as_scene else str(like))
    written = nibabel.load(tmp_path / name)
    assert_array_equal(np.asanyarray(written.dataobj), np.where(labels < 0, 255, labels).T)
    assert written.get_data_dtype() == np.uint8
    assert_allclose(written.affine, AFFINE, atol=1e-6)
    assert written.header.get_zooms() == image.header.get_zooms()
    assert [int(written.header[code]) for code in ("qform_code", "sform_code")] == [1, 2]
    assert written.header.get_xyzt_units()[0] == "mm"
    assert_array_equal(read_labels(tmp_path / name, 255), labels)


def test_the_affine_of_a_scene_of_an_array(rng, tmp_path):
    save(tmp_path / "image.nii", voxels_of(rng, 4, 5, 6))
    scene = Scene(tmp_path / "image.nii")
    write_labels(tmp_path / "a.nii", np.ones((6, 5, 4), int), like=scene.replace(image=scene.image))
    assert_allclose(nibabel.load(tmp_path / "a.nii").affine, AFFINE, atol=1e-6)
    bare = Scene(np.zeros((6, 5, 4)), spacing=(3, 2, 1), spatial_ndim=3)
    write_labels(tmp_path / "b.nii", np.ones((6, 5, 4), int), like=bare)
    assert Scene(tmp_path / "b.nii").spacing == (3, 2, 1)
    assert_array_equal(nibabel.load(tmp_path / "b.nii").affine, np.diag([1, 2, 3, 1]))
    write_labels(tmp_path / "c.nii", np.ones((6, 5), int), like=Scene(np.zeros((6, 5)), spacing=2))
    assert Scene(tmp_path / "c.nii").spacing == (2, 2)
    write_labels(tmp_path / "d.nii", np.ones((6, 5, 4), int))
    assert_array_equal(nibabel.load(tmp_path / "d.nii").affine, np.eye(4))


@pytest.mark.parametrize(
    ("top", "void", "dtype"),
    [(9, 255, "u1"), (9, -1, "i2"), (300, 500, "i2"), (40000, 255, "i4"), (9, 0, "u1")],
)
def test_labels_take_the_smallest_numbers_that_hold_them(tmp_path, top, void, dtype):
    labels = np.array([[[1, top, -5]]])
    write_labels(tmp_path / "a.nii.gz", labels, ignore_label=void)
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.dtype(dtype)
    assert_array_equal(read_labels(tmp_path / "a.nii.gz", void), [[[1, top, -1]]])


def test_labels_of_another_shape_are_refused(rng, tmp_path):
    save(tmp_path / "image.nii", voxels_of(rng, 4, 5, 6))
    with pytest.raises(ValueError, match=r"labels have shape \(4, 5, 6\), but like=.*\(6, 5, 4\)"):
        write_labels(tmp_path / "a.nii", np.ones((4, 5, 6), int), like=tmp_path / "image.nii")
    with pytest.raises(TypeError, match="like is a int; expected the image's path or a Scene"):
        write_labels(tmp_path / "a.nii", np.ones((4, 5, 6), int), like=3)
    assert [path.name for path in tmp_path.iterdir()] == ["image.nii"]


def test_without_nibabel_the_error_says_what_to_install(rng, tmp_path, monkeypatch):
    save(tmp_path / "a.nii", voxels_of(rng, 4, 5, 6))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ImportError, match=r"pip install 'hybridseg\[volumes\]'"):
        read_image(tmp_path / "a.nii")


def test_from_a_folder_of_volumes_to_written_predictions(rng, tmp_path):
    """Spacing reaches the refiner: mm from the files equal mm that were given."""
    for part in ("images", "labels", "out"):
        (tmp_path / part).mkdir()
    arrays = []
    for name in "ab":
        labels = np.zeros((7, 10, 12), int)
        labels[2:5, 3:8, 4:9] = 1
        voxels = (labels * 90 + rng.integers(0, 60, labels.shape)).astype(np.uint8)
        save(tmp_path / "images" / f"{name}.nii.gz", voxels.T, np.diag([1.0, 1, 3, 1]))
        image = tmp_path / "images" / f"{name}.nii.gz"
        write_labels(tmp_path / "labels" / f"{name}.nii.gz", labels, like=image)
        arrays.append((voxels, labels))
    data = load_folder(tmp_path)
    assert data.names == ["a", "b"]
    model = make_pipeline(PixelClassifier(random_state=0), DenseCRF(n_iter=2))
    found = model.fit(data.X, data.y).predict(data.X)
    given = [Scene(voxels, spacing=(3, 1, 1), spatial_ndim=3) for voxels, _ in arrays]
    expected = model.fit(given, [labels for _, labels in arrays]).predict(given)
    for one, other in zip(found, expected, strict=True):
        assert_array_equal(one, other)
    scene = model.transform(data.X)[0]
    assert scene.spacing == (3, 1, 1)
    write_labels(tmp_path / "out" / "a.nii.gz", scene.prediction, like=scene)
    assert_allclose(nibabel.load(tmp_path / "out" / "a.nii.gz").affine, np.diag([1.0, 1, 3, 1]))
