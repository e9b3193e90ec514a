"""Every kind of TIFF file: axes, numbers, color spaces, compressions."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image

from hybridseg import Scene
from hybridseg.datasets import UnreadableFileError, read_image, read_labels, write_labels

GRAY = {"photometric": "minisblack"}


def numbers(rng, *shape):
    return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif"])
@pytest.mark.parametrize(
    ("axes", "order"),
    [
        ("YX", "YX"),
        ("CYX", "YXC"),
        ("ZYX", "ZYX"),
        ("CZYX", "ZYXC"),
        ("ZCYX", "ZYXC"),
    ],
)
def test_named_axes_are_honored(rng, tmp_path, name, axes, order):
    sides = {"Y": 16, "X": 20, "C": 5, "Z": 4}
    array = numbers(rng, *(sides[axis] for axis in axes))
    tifffile.imwrite(tmp_path / name, array, metadata={"axes": axes}, **GRAY)
    read = read_image(tmp_path / name)
    assert_array_equal(read, np.transpose(array, [axes.index(axis) for axis in order]))
    assert Scene(tmp_path / name).rank == 2 + ("Z" in axes)


def test_hyperstacks_of_imagej(rng, tmp_path):
    array = rng.integers(0, 4000, (4, 2, 16, 20), dtype=np.uint16)
    about = {"axes": "ZCYX", "spacing": 2.0, "unit": "um"}
    tifffile.imwrite(tmp_path / "a.tif", array, imagej=True, metadata=about, resolution=(4, 2))
    assert_array_equal(read_image(tmp_path / "a.tif"), np.moveaxis(array, 1, -1))
    assert Scene(tmp_path / "a.tif").spacing == (2.0, 0.5, 0.25)


def test_spacing_of_ome_volumes(rng, tmp_path):
    about = {"axes": "ZYX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", numbers(rng, 3, 16, 20), metadata=about, **GRAY)
    scene = Scene(tmp_path / "a.ome.tif")
    assert scene.spacing == (2.0, 0.5, 0.25)
    assert scene.replace(spatial_ndim=2).spacing is None
    mixed = {**about, "PhysicalSizeZUnit": "mm"}
    tifffile.imwrite(tmp_path / "b.ome.tif", numbers(rng, 3, 16, 20), metadata=mixed, **GRAY)
    assert Scene(tmp_path / "b.ome.tif").spacing is None


def test_pages_are_planes(rng, tmp_path):
    pages = numbers(rng, 5, 16, 20)
    first, *others = [Image.fromarray(page) for page in pages]
    first.save(tmp_path / "a.tif", save_all=True, append_images=others)
    assert_array_equal(read_image(tmp_path / "a.tif"), pages)
    assert_array_equal(read_labels(tmp_path / "a.tif"), pages)
    assert Scene(tmp_path / "a.tif").rank == 3


@pytest.mark.parametrize("shape", [(1, 4, 5), (4, 1, 5), (3, 4, 5), (16, 20, 7), (4, 5)])
def test_unnamed_axes_come_back_as_they_were(rng, tmp_path, shape):
    array = rng.standard_normal(shape)
    tifffile.imwrite(tmp_path / "a.tif", array, **GRAY)
    assert_array_equal(read_image(tmp_path / "a.tif"), array)
    labels = rng.integers(0, 9, shape)
    write_labels(tmp_path / "b.tif", labels)
    assert_array_equal(read_labels(tmp_path / "b.tif"), labels)


def test_time_and_several_images_are_refused(rng, tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbers(rng, 2, 3, 16, 20), metadata={"axes": "TCYX"}, **GRAY)
    with pytest.raises(UnreadableFileError, match=r"a\.tif has the axes TCYX.*np\.moveaxis\(array"):
        read_image(path)
    tifffile.imwrite(path, numbers(rng, 1, 3, 16, 20), metadata={"axes": "TCYX"}, **GRAY)
    assert read_image(path).shape == (16, 20, 3)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(numbers(rng, 16, 20))
        tiff.write(numbers(rng, 8, 10))
    with pytest.raises(UnreadableFileError, match=r"holds 2 images .*imread\(.*series=0\)"):
        read_image(path)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(numbers(rng, 16, 20), subifds=1)
        tiff.write(numbers(rng, 8, 10), subfiletype=1)
    assert read_image(path).shape == (16, 20)


def test_channels_are_no_labels(rng, tmp_path):
    for axes, shape in (("CYX", (2, 16, 20)), ("YXS", (16, 20, 3)), ("ZCYX", (4, 2, 16, 20))):
        color = {"photometric": "rgb"} if axes == "YXS" else GRAY
        tifffile.imwrite(tmp_path / "a.tif", numbers(rng, *shape), metadata={"axes": axes}, **color)
        with pytest.raises(UnreadableFileError, match=r"channels \(axes .*a label map has one"):
            read_labels(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", numbers(rng, 16, 20, 1), metadata={"axes": "YXC"}, **GRAY)
    assert read_labels(tmp_path / "a.tif").shape == (16, 20)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate", "zstd", "packbits", "lzma"])
@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i2", "u4", "i4", "f2", "f4", ">f8"])
def test_numbers_and_compressions(rng, tmp_path, compression, dtype):
    array = rng.integers(0, 100, (33, 21)).astype(dtype)
    options = {} if compression in (None, "packbits", "lzma") else {"predictor": True}
    if dtype[-2:] in ("f2", "f8"):
        pytest.importorskip("imagecodecs")
    tifffile.imwrite(
        tmp_path / "a.tif",
        array,
        compression=compression,
        byteorder=">" if dtype[0] == ">" else None,
        bigtiff=dtype == "u4",
        tile=(16, 16) if dtype == "i2" else None,
        **options,
        **GRAY,
    )
    read = read_image(tmp_path / "a.tif")
    assert_array_equal(read, array)
    assert read.dtype == np.dtype(dtype).newbyteorder("=")
    assert_array_equal(read_labels(tmp_path / "a.tif"), array)


@pytest.mark.parametrize("compression", [None, "tiff_ccitt", "group3", "group4"])
def test_black_and_white(rng, tmp_path, compression):
    mask = rng.random((33, 21)) < 0.5
    Image.fromarray(mask).save(tmp_path / "a.tif", compression=compression)
    assert_array_equal(read_image(tmp_path / "a.tif"), mask)
    assert_array_equal(read_labels(tmp_path / "a.tif"), mask)


def test_zero_may_be_white(rng, tmp_path):
    for dtype in ("u1", "u2"):
        stored = rng.integers(0, 256, (9, 7)).astype(dtype)
        tifffile.imwrite(tmp_path / "a.tif", stored, photometric="miniswhite")
        assert_array_equal(read_image(tmp_path / "a.tif"), np.iinfo(dtype).max - stored)


def test_palettes(rng, tmp_path):
    indices = rng.integers(0, 3, (5, 8), dtype=np.uint8)
    stored = Image.frombytes("P", (8, 5), indices.tobytes())
    stored.putpalette([9, 8, 7, 200, 100, 50, 0, 255, 0])
    stored.save(tmp_path / "a.tif")
    colors = np.array([[9, 8, 7], [200, 100, 50], [0, 255, 0]], np.uint8)
    assert_array_equal(read_image(tmp_path / "a.tif"), colors[indices])
    assert_array_equal(read_labels(tmp_path / "a.tif"), indices)


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_other_color_spaces_become_rgb(tmp_path, mode, compression):
    smooth = np.add.outer(np.arange(24), np.arange(36))[..., None] * [1, 2, 3] + [50, 60, 20]
    pillow_image = Image.fromarray(smooth.astype(np.uint8)).convert(mode)
    pillow_image.save(tmp_path / "a.tif", compression=compression)
    read = read_image(tmp_path / "a.tif")
    assert np.abs(read.astype(int) - np.asarray(pillow_image.convert("RGB"))).max() <= 2


@pytest.mark.parametrize("options", [{}, {"tile": (16, 16)}, {"rowsperstrip": 8}])
def test_jpeg_inside_is_near(tmp_path, options):
    pytest.importorskip("imagecodecs", reason="tifffile needs it to write")
    smooth = np.add.outer(np.arange(24), np.arange(36))[..., None] * [1, 2, 3] + [50, 60, 20]
    image = smooth.astype(np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="rgb", compression="jpeg", **options)
    assert np.abs(read_image(tmp_path / "a.tif").astype(int) - image).mean() < 2


def test_planes_of_a_marked_volume_are_turned(rng, tmp_path):
    volume = numbers(rng, 3, 8, 10)
    mark = [(274, "H", 1, 6, True)]
    tifffile.imwrite(tmp_path / "a.tif", volume, metadata={"axes": "ZYX"}, extratags=mark, **GRAY)
    expected = np.stack([np.rot90(plane, -1) for plane in volume])
    assert_array_equal(read_image(tmp_path / "a.tif"), expected)


@pytest.mark.parametrize("tag", [273, 279])
@pytest.mark.parametrize("compression", [None, "deflate"])
def test_missing_strips_are_no_zeros(rng, tmp_path, tag, compression):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, numbers(rng, 32, 20), rowsperstrip=4, compression=compression, **GRAY)
    assert read_image(path).shape == (32, 20)
    with tifffile.TiffFile(path) as tiff:
        place = tiff.pages[0].tags[tag].offset
    content = bytearray(path.read_bytes())
    content[place + 4 : place + 8] = (5).to_bytes(4, "little")  # of eight strips
    path.write_bytes(content)
    with pytest.raises(UnreadableFileError, match=r"a\.tif (is cut short|cannot be read)"):
        read_image(path)


WITHOUT = """
import sys
sys.modules["imagecodecs"] = None
import numpy as np
from PIL import Image
from hybridseg.datasets import UnreadableFileError, read_image
folder = sys.argv[1]
image = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
for compression in ("tiff_lzw", "tiff_deflate", "zstd", "packbits", "jpeg"):
    Image.fromarray(image).save(folder + "/a.tif", compression=compression)
    read = read_image(folder + "/a.tif")
    assert read.shape == image.shape
    assert compression == "jpeg" or (read == image).all(), compression
Image.fromarray(image[..., 0] > 9).save(folder + "/a.tif", compression="group4")
assert (read_image(folder + "/a.tif") == (image[..., 0] > 9)).all()
planes = [Image.fromarray(image[..., i]) for i in range(3)]
planes[0].save(folder + "/a.tif", save_all=True, append_images=planes[1:], compression="tiff_lzw")
assert (read_image(folder + "/a.tif") == np.moveaxis(image, -1, 0)).all()
for name in ("half.tif", "deep.tif"):
    try:
        read_image(folder + "/" + name)
    except UnreadableFileError as error:
        assert "pip install 'hybridseg[tiff]'" in str(error), error
    else:
        raise AssertionError(name)
"""


def test_common_compressions_need_no_further_package(rng, tmp_path):
    pytest.importorskip("imagecodecs", reason="tifffile needs it to write")
    half = rng.random((9, 11)).astype(np.float16)
    tifffile.imwrite(tmp_path / "half.tif", half, compression="lzw", **GRAY)
    deep = rng.integers(0, 2**16, (9, 11, 3), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", deep, photometric="rgb", compression="lzw")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_thumbnails_do_not_count(rng, tmp_path):
    path = tmp_path / "a.tif"
    image = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
    with tifffile.TiffWriter(path) as writer:
        writer.write(image, photometric="rgb")
        writer.write(image[::4, ::4], photometric="rgb", subfiletype=1)
    assert_array_equal(read_image(path), image)
    with tifffile.TiffWriter(path) as writer:  # one thumbnail and nothing else
        writer.write(image[::4, ::4], photometric="rgb", subfiletype=1)
    assert_array_equal(read_image(path), image[::4, ::4])
