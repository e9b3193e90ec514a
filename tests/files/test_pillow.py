"""Orientation tags, palettes, colors and doubtful label maps."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from hybridseg import PixelClassifier, Scene
from hybridseg.datasets import UnreadableFileError, read_image, read_labels
from hybridseg.files.reading import turned


def marked(mark):
    exif = Image.Exif()
    exif[274] = mark
    return exif


def random_image(rng, shape=(6, 10, 3)):
    return rng.integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("mark", range(1, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.tif"])
def test_images_come_upright(rng, tmp_path, name, mark):
    path = tmp_path / name
    options = {"a.jpg": {"quality": 95}, "a.webp": {"lossless": True}}.get(name, {})
    stored = Image.fromarray(random_image(rng))
    if name == "a.tif":
        tifffile.imwrite(
            path, np.asarray(stored), photometric="rgb", extratags=[(274, "H", 1, mark, True)]
        )
        upright = turned(np.asarray(stored), mark)
    else:
        stored.save(path, exif=marked(mark), **options)
        upright = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    read = read_image(path)
    assert_array_equal(read, upright)
    assert read.shape[:2] == ((10, 6) if mark >= 5 else (6, 10))
    assert read.flags.c_contiguous
    assert read.flags.writeable


@pytest.mark.parametrize("mark", range(1, 9))
def test_turning_is_what_pillow_does(rng, mark):
    stored = Image.fromarray(random_image(rng))
    stored.getexif()[274] = mark
    assert_array_equal(turned(np.asarray(stored), mark), ImageOps.exif_transpose(stored))


def test_a_marked_label_map_is_turned_as_its_image(rng, tmp_path):
    labels = rng.integers(0, 3, (6, 10), dtype=np.uint8)
    Image.fromarray(labels).save(tmp_path / "a.png", exif=marked(6))
    assert_array_equal(read_labels(tmp_path / "a.png"), np.rot90(labels, -1))


def test_an_unturned_label_map_is_explained(rng, tmp_path):
    image, labels = (
        random_image(rng, (24, 32, 3)),
        np.repeat([[0], [1]], 12, 0) * np.ones((1, 32), int),
    )
    path = tmp_path / "a.png"
    Image.fromarray(image).save(path, exif=marked(8))
    with pytest.raises(ValueError, match=r"orientation tag 8.*turned\(labels, 8\)"):
        PixelClassifier().fit([path], [labels])
    model = PixelClassifier().fit([path], [turned(labels, 8)])
    with pytest.raises(ValueError, match=r"y\[0\] has shape \(24, 32\).*orientation tag 8"):
        model.score([path], [labels])
    assert turned(labels, 8).shape == read_image(path).shape[:2]


def test_channels_first_is_explained(rng):
    labels = np.repeat([[0], [1]], 12, 0) * np.ones((1, 32), int)
    with pytest.raises(ValueError, match=r"np\.moveaxis\(image, 0, -1\)"):
        PixelClassifier().fit([random_image(rng, (3, 24, 32))], [labels])


def test_colors_are_refused_as_labels_with_the_cure(rng, tmp_path):
    gray = rng.integers(0, 3, (5, 6), dtype=np.uint8)
    for name in ("a.png", "a.tif"):
        path = tmp_path / name
        Image.fromarray(np.dstack([gray] * 3)).save(path)
        with pytest.raises(UnreadableFileError, match=r"3 channels .* all equal: select one"):
            read_labels(path)
        Image.fromarray(random_image(rng)).save(path)
        with pytest.raises(UnreadableFileError, match="Turn its colors into numbers"):
            read_labels(path)
        Image.fromarray(np.dstack([gray] * 4)).save(path)
        with pytest.raises(UnreadableFileError, match="4 channels"):
            read_labels(path)


def test_a_palette_of_grays_is_doubted(tmp_path):
    labels = np.array([[0, 1, 2]], np.uint8)
    stored = Image.frombytes("P", (3, 1), labels.tobytes())
    stored.putpalette([0] * 3 + [7] * 3 + [255] * 3)
    stored.save(tmp_path / "a.png")
    with pytest.warns(UserWarning, match=r"a\.png has a palette of grays.*1 \(gray 7\), 2 \(gray"):
        assert_array_equal(read_labels(tmp_path / "a.png"), labels)
    two = Image.frombytes("P", (2, 1), b"\0\1")
    two.putpalette([0] * 3 + [255] * 3)  # black and white may have any numbers
    two.save(tmp_path / "two.png")
    assert_array_equal(read_labels(tmp_path / "two.png"), [[0, 1]])
    for palette in ([0] * 3 + [1] * 3 + [2] * 3, [0] * 3 + [128, 0, 0] + [0, 128, 0]):
        stored.putpalette(palette)
        stored.save(tmp_path / "a.png")
        assert_array_equal(read_labels(tmp_path / "a.png"), labels)


def test_a_jpeg_is_doubted_as_a_label_map(tmp_path):
    Image.fromarray(np.full((16, 16), 3, np.uint8)).save(tmp_path / "a.jpg")
    with pytest.warns(UserWarning, match=r"a\.jpg is a JPEG, which changes the numbers"):
        assert (read_labels(tmp_path / "a.jpg") == 3).all()


def test_content_counts_and_not_the_ending(rng, tmp_path):
    image = random_image(rng)
    Image.fromarray(image).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "b.tif", image, photometric="rgb")
    for old, new in (("a.png", "a.jpg"), ("a.jpg", "a.tif"), ("b.tif", "b.png")):
        (tmp_path / old).rename(tmp_path / new)
        assert_array_equal(read_image(tmp_path / new), image)


def test_the_bound_is_ours_and_not_that_of_pillow(tmp_path, monkeypatch):
    """Pillow would warn of large images, and refuse larger ones, whatever a pixel takes."""
    Image.new("1", (100, 90)).save(tmp_path / "a.png")
    for limit in (100, 6000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        assert read_image(tmp_path / "a.png").shape == (90, 100)


def test_scenes_of_turned_images(rng, tmp_path):
    Image.fromarray(random_image(rng)).save(tmp_path / "a.png", exif=marked(6))
    scene = Scene(tmp_path / "a.png")
    assert scene.shape == (10, 6)
    assert scene.spacing is None
    assert scene.meta == {}


@pytest.mark.parametrize(("mode", "n_bytes"), [("RGB", 3), ("L", 1), ("I;16", 2), ("1", 1)])
def test_an_image_may_unpack_to_the_bound_and_no_further(tmp_path, monkeypatch, mode, n_bytes):
    Image.new(mode, (100, 90)).save(tmp_path / "a.png")
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", str(9000 * n_bytes))
    assert read_image(tmp_path / "a.png").shape[:2] == (90, 100)
    monkeypatch.setenv("HYBRIDSEG_MAX_UNPACKED_BYTES", str(9000 * n_bytes - 1))
    with pytest.raises(UnreadableFileError, match=f"would unpack to {9000 * n_bytes} bytes"):
        read_image(tmp_path / "a.png")
