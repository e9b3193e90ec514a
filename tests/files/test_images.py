from __future__ import annotations

import gzip
import os
import struct
import zlib

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from hybridseg import Scene
from hybridseg.datasets import (
    UnreadableFileError,
    read_image,
    read_labels,
    read_nifti,
    write_labels,
)
from hybridseg.files.images import image_id


def write_nifti(path, voxels, *, code, order="<", slope=1.0, offset=0.0):
    """Write ``voxels`` (x, y, z[, c]), x fastest, as the standard lays them out."""
    header = bytearray(352)
    struct.pack_into(order + "i", header, 0, 348)
    shape = [*voxels.shape, *[1] * (7 - voxels.ndim)]
    struct.pack_into(order + "8h", header, 40, voxels.ndim, *shape)
    struct.pack_into(order + "h", header, 70, code)
    struct.pack_into(order + "3f", header, 108, 352, slope, offset)
    header[344:348] = b"n+1\0"
    content = bytes(header) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes(order="F")
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def bytes_of(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tif", "a.TIFF", "a.npy"])
def test_color_images_come_back_as_stored(rng, tmp_path, name):
    image = bytes_of(rng, 13, 7, 3)
    path = tmp_path / name
    if name.endswith(".npy"):
        np.save(path, image)
    elif name.lower().endswith(("tif", "tiff")):
        tifffile.imwrite(path, image, photometric="rgb")
    else:
        Image.fromarray(image).save(path, **({"lossless": True} if "webp" in name else {}))
    for given in (path, str(path)):
        read = read_image(given)
        assert_array_equal(read, image)
        assert read.dtype == np.uint8
        assert read.flags.writeable


def test_jpeg_is_near(rng, tmp_path):
    image = np.full((16, 24, 3), (200, 100, 50), np.uint8)
    Image.fromarray(image).save(tmp_path / "a.jpg", quality=95)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - image).max() <= 3


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 2), (5, 6, 4)])
def test_channels_are_kept(rng, tmp_path, shape):
    image = bytes_of(rng, *shape)
    Image.fromarray(image).save(tmp_path / "a.png")
    assert_array_equal(read_image(tmp_path / "a.png"), image)


def test_wide_and_narrow_dtypes_are_kept(rng, tmp_path):
    deep = rng.integers(0, 2**16, (4, 9), dtype=np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert_array_equal(read_image(tmp_path / "deep.png"), deep)
    assert read_image(tmp_path / "deep.png").dtype == np.uint16
    binary = rng.random((4, 9)) < 0.5
    Image.fromarray(binary).save(tmp_path / "binary.png")
    assert_array_equal(read_image(tmp_path / "binary.png"), binary)
    volume = rng.standard_normal((3, 4, 5)).astype(np.float32)
    tifffile.imwrite(tmp_path / "volume.tif", volume, photometric="minisblack")
    assert_array_equal(read_image(tmp_path / "volume.tif"), volume)


def test_planar_tiff_gets_its_channels_last(rng, tmp_path):
    planes = bytes_of(rng, 3, 5, 8)
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    assert_array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(planes, 0, -1))


def png_bytes(width, height, bits, color_type, rows):
    """A PNG file byte by byte, for the forms that Pillow does not write."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def palette_image(indices):
    pillow_image = Image.frombytes("P", indices.shape[::-1], indices.tobytes())
    pillow_image.putpalette([9, 8, 7, 200, 100, 50, 0, 255, 0])
    return pillow_image


def test_palette_gives_colors_to_images_and_indices_to_labels(rng, tmp_path):
    indices = rng.integers(0, 3, (5, 8), dtype=np.uint8)
    palette_image(indices).save(tmp_path / "a.png")
    colors = np.array([[9, 8, 7], [200, 100, 50], [0, 255, 0]], np.uint8)
    assert_array_equal(read_image(tmp_path / "a.png"), colors[indices])
    assert_array_equal(read_labels(tmp_path / "a.png"), indices)
    expected = np.where(indices == 2, -1, indices.astype(int))
    assert_array_equal(read_labels(tmp_path / "a.png", 2), expected)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_labels_of_few_bits_are_not_stretched(rng, tmp_path, bits):
    indices = rng.integers(0, 2**bits, (3, 8), dtype=np.uint8)
    digits = (indices[..., np.newaxis] >> np.arange(bits - 1, -1, -1)) & 1
    rows = np.packbits(digits.reshape(3, -1), axis=1)
    png = png_bytes(8, 3, bits, 0, [row.tobytes() for row in rows])
    (tmp_path / "a.png").write_bytes(png)
    assert_array_equal(read_labels(tmp_path / "a.png"), indices)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("dtype", "code"), [("u1", 2), ("i2", 4), ("f4", 16), ("f8", 64)])
def test_nifti_axes_are_reversed(rng, tmp_path, name, order, dtype, code):
    voxels = rng.integers(0, 100, (4, 5, 6)).astype(dtype)
    write_nifti(tmp_path / name, voxels, code=code, order=order)
    read = read_image(tmp_path / name)
    assert_array_equal(read, voxels.T)
    assert read.dtype == np.dtype(dtype)
    assert read.flags.writeable
    assert read.flags.c_contiguous


def test_nifti_channels_scaling_and_short_axes(rng, tmp_path):
    path = tmp_path / "a.nii"
    voxels = rng.integers(0, 9, (2, 3, 4, 5)).astype("i2")
    write_nifti(path, voxels, code=4)
    assert_array_equal(read_nifti(path), voxels.transpose(2, 1, 0, 3))
    write_nifti(path, voxels[..., :1], code=4, slope=0.5, offset=-1.0)
    assert_array_equal(read_nifti(path), voxels[..., 0].T * 0.5 - 1)
    write_nifti(path, voxels[..., 0], code=4, slope=0.0, offset=7.0)
    assert_array_equal(read_nifti(path), voxels[..., 0].T)
    write_nifti(path, voxels[:, :, 0, 0], code=4)
    assert_array_equal(read_nifti(path), voxels[:, :, 0, 0].T)
    write_nifti(path, voxels[:, :1, :1, 0], code=4)
    assert read_nifti(path).shape == (1, 1, 2)


def test_labels_stored_as_whole_floats_are_labels(tmp_path):
    voxels = np.arange(24, dtype="f4").reshape(2, 3, 4)
    write_nifti(tmp_path / "a.nii.gz", voxels, code=16)
    labels = read_labels(tmp_path / "a.nii.gz", ignore_label=5)
    assert_array_equal(labels, np.where(voxels == 5, -1, voxels).T)
    assert labels.dtype == np.int32
    np.save(tmp_path / "b.npy", voxels + 0.5)
    with pytest.raises(ValueError, match=r"b\.npy holds fractions"):
        read_labels(tmp_path / "b.npy")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy"])
@pytest.mark.parametrize("top", [1, 255, 256, 65535])
def test_written_labels_come_back(rng, tmp_path, name, top):
    labels = rng.integers(0, top, (6, 9))
    labels[2, 3] = top
    write_labels(tmp_path / name, labels)
    assert_array_equal(read_labels(tmp_path / name), labels)
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("ignore_label", [2, 255, 60000])
def test_void_is_written_as_the_ignored_label(tmp_path, ignore_label):
    labels = np.array([[0, 1, -1], [-7, 300, 0]])
    write_labels(tmp_path / "a.png", labels, ignore_label=ignore_label)
    expected = np.maximum(labels, -1)
    assert_array_equal(read_labels(tmp_path / "a.png", ignore_label), expected)
    assert (read_labels(tmp_path / "a.png") == ignore_label).sum() == 2


def test_volumes_of_labels_and_booleans(rng, tmp_path):
    labels = rng.integers(0, 3, (2, 4, 5))
    for name in ("a.tif", "a.npy"):
        write_labels(tmp_path / name, labels)
        assert_array_equal(read_labels(tmp_path / name), labels)
    write_labels(tmp_path / "mask.png", labels[0] > 1)
    assert_array_equal(read_labels(tmp_path / "mask.png"), labels[0] > 1)


@pytest.mark.parametrize(
    ("name", "labels", "options", "match"),
    [
        ("a.jpg", [[0]], {}, r"ending '\.jpg'; expected \.png, \.tif, \.npy"),
        ("a.png", [[[0]]], {}, "a PNG has two axes"),
        ("a.png", [[2**16]], {}, "can hold labels below 65536"),
        ("a.png", [[-1, 255]], {}, "both void pixels and the class 255"),
        ("a.png", [[-1, 3]], {"ignore_label": 3}, "both void pixels and the class 3"),
        ("a.png", [[-1, 3]], {"ignore_label": -5}, "ignore_label=-5"),
    ],
)
def test_labels_that_cannot_be_written(tmp_path, name, labels, options, match):
    with pytest.raises(ValueError, match=match):
        write_labels(tmp_path / name, np.array(labels), **options)
    assert list(tmp_path.iterdir()) == []


def test_failed_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.png"
    write_labels(path, np.array([[1, 2]]))
    with pytest.raises(TypeError, match="labels has dtype float64"):
        write_labels(path, np.array([[0.5]]))
    assert read_labels(path).tolist() == [[1, 2]]


def test_unreadable_files(rng, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.png: there is no such file"):
        read_image(tmp_path / "gone.png")
    for name in ("a.png", "a.tif", "a.npy", "a.nii", "a.nii.gz", "a.jpg"):
        (tmp_path / name).write_bytes(b"not an image")
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name)
    (tmp_path / "a.xyz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"unknown ending; expected one of \.nii\.gz"):
        read_image(tmp_path / "a.xyz")


def test_truncated_files(rng, tmp_path):
    Image.fromarray(bytes_of(rng, 40, 40)).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"a\.png cannot be decoded"):
        read_image(tmp_path / "a.png")
    write_nifti(tmp_path / "a.nii", np.zeros((4, 4, 4)), code=64)
    (tmp_path / "a.nii").write_bytes((tmp_path / "a.nii").read_bytes()[:500])
    with pytest.raises(ValueError, match=r"a\.nii is cut short"):
        read_image(tmp_path / "a.nii")
    write_nifti(tmp_path / "b.nii", np.zeros((4, 4, 4), complex), code=1792)
    with pytest.raises(ValueError, match="b.nii holds values of dtype complex128"):
        read_image(tmp_path / "b.nii")


def test_colors_are_no_labels(rng, tmp_path):
    Image.fromarray(bytes_of(rng, 5, 6, 3)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"3 channels \(RGB\); a label map has one"):
        read_labels(tmp_path / "a.png")


def test_sixteen_bit_colors_are_not_cut_silently(tmp_path):
    (tmp_path / "a.png").write_bytes(png_bytes(1, 1, 16, 2, [struct.pack(">3H", 1, 300, 65535)]))
    with pytest.raises(ValueError, match="16-bit colors"):
        read_image(tmp_path / "a.png")


def test_a_negative_void_needs_numbers_with_a_sign(tmp_path):
    labels = np.array([[0, 300, -7]])
    for name in ("a.tif", "a.npy"):
        write_labels(tmp_path / name, labels, ignore_label=-1)
        assert_array_equal(read_labels(tmp_path / name), [[0, 300, -1]])
    with pytest.raises(ValueError, match=r"ignore_label=-1; a PNG cannot hold negative numbers"):
        write_labels(tmp_path / "a.png", labels, ignore_label=-1)


def test_labels_have_the_shape_of_their_image(rng, tmp_path):
    image = bytes_of(rng, 6, 9, 3)
    Image.fromarray(image).save(tmp_path / "image.png")
    for like in (tmp_path / "image.png", Scene(image), Scene(tmp_path / "image.png")):
        write_labels(tmp_path / "a.png", np.ones((6, 9), int), like=like)
        with pytest.raises(ValueError, match=r"labels have shape \(9, 6\), but like=.*\(6, 9\)"):
            write_labels(tmp_path / "b.png", np.ones((9, 6), int), like=like)
    assert not (tmp_path / "b.png").exists()


def test_labels_go_to_a_folder_that_is_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere"):
        write_labels(tmp_path / "nowhere" / "a.png", np.ones((3, 4), int))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.npy", "a.nii.gz"])
def test_a_half_written_file_is_not_left(tmp_path, name, monkeypatch):
    pytest.importorskip("nibabel")
    labels = np.ones((3, 4), int)
    write_labels(tmp_path / name, labels)

    def full(number):
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_labels(tmp_path / name, labels * 2)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert_array_equal(read_labels(tmp_path / name), labels)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.png", "a"),
        ("A.JPEG", "A"),
        ("a.b.nii.gz", "a.b"),
        ("scan.img", "scan"),
        ("scan.hdr", None),  # belongs to scan.img
        ("a.npz", "a"),
        (".a.png", None),  # hidden
        ("png", None),
        ("notes.txt", None),
    ],
)
def test_the_id_of_an_image_is_its_name_without_ending(name, expected):
    assert image_id(name) == expected


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
@pytest.mark.parametrize("written", ["png", "tiff", "big tiff", "big-endian tiff"])
def test_first_bytes_count_more_than_the_ending(rng, tmp_path, name, written):
    image, path = bytes_of(rng, 9, 11, 3), tmp_path / name
    if written == "png":
        Image.fromarray(image).save(path, format="png")
    else:
        options = {"bigtiff": written == "big tiff"}
        options["byteorder"] = ">" if written == "big-endian tiff" else "<"
        with path.open("wb") as file:
            tifffile.imwrite(file, image, photometric="rgb", **options)
    assert_array_equal(read_image(path), image)
    assert Scene(path).rank == 2


def test_the_only_array_of_an_archive_is_read(rng, tmp_path):
    image = bytes_of(rng, 5, 6, 3)
    np.savez(tmp_path / "a.npz", image)
    assert_array_equal(read_image(tmp_path / "a.npz"), image)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(UnreadableFileError, match="is a device or a pipe; expected a regular file"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf, -np.inf])
def test_labels_are_whole_and_finite(tmp_path, value):
    np.save(tmp_path / "a.npy", np.array([[1.0, value]]))
    with pytest.raises(UnreadableFileError, match="holds fractions, NaN or infinity"):
        read_labels(tmp_path / "a.npy")


@pytest.mark.parametrize("content", [b"no image of any kind", b"RIFF\0\0\0\0WAVEfmt sound"])
@pytest.mark.parametrize(("name", "kind"), [("a.png", "an image: its first"), ("b.tif", "a")])
def test_the_ending_counts_if_the_first_bytes_are_unknown(tmp_path, name, kind, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableFileError, match=f"{name} cannot be read as {kind}"):
        read_image(tmp_path / name)
