import base64
import io

import numpy as np
import pytest
from PIL import Image

from hybridseg.report.images import (
    BACKGROUND_COLOR,
    PALETTE,
    VOID_COLOR,
    class_colors,
    labels_uri,
    nearest,
    photo_uri,
)

RED, BLUE = (255, 0, 0), (0, 0, 255)


def decoded(uri):
    head, data = uri.split(",", 1)
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_colors_differ_and_background_is_dark():
    colors = class_colors({0: "background", 1: "cat", 5: "cup", 9: "sky"})
    assert list(colors.values()) == [BACKGROUND_COLOR, *PALETTE[:3]]
    assert len(set(PALETTE)) == len(PALETTE)
    many = class_colors({i: str(i) for i in range(40)})
    assert many[len(PALETTE)] == PALETTE[0]


def test_a_label_map_is_painted_in_its_colors():
    labels = np.full((24, 40), 3)
    labels[:, 20:] = 8
    labels[:4, :4] = -1
    painted = np.asarray(decoded(labels_uri(labels, {3: RED, 8: BLUE}, 480)).convert("RGBA"))
    assert painted.shape == (24, 40, 4)
    assert tuple(painted[12, 5, :3]) == RED
    assert tuple(painted[12, 30, :3]) == BLUE
    assert 0 < painted[12, 5, 3] < 255  # areas are translucent
    assert (painted[12, 19:21, 3] == 255).all()  # outlines are opaque
    assert tuple(painted[0, 0, :3]) == VOID_COLOR
    assert painted[0, 2, 3] == 0


def test_scribbles_are_opaque_on_nothing():
    labels = np.full((10, 16), -1)
    labels[2, 3] = 1
    painted = np.asarray(
        decoded(labels_uri(labels, {0: BLUE, 1: RED}, 480, sparse=True)).convert("RGBA")
    )
    assert tuple(painted[2, 3]) == (*RED, 255)
    assert tuple(painted[1, 4, :3]) == VOID_COLOR
    assert (painted[..., 3] > 0).sum() == 9  # the pixel and its edge


def test_a_map_of_nothing_but_void_is_painted():
    assert decoded(labels_uri(np.full((8, 9), -1), {0: RED}, 480)).size == (9, 8)


def test_too_many_classes_for_one_map():
    labels = np.arange(130).reshape(10, 13)
    with pytest.raises(ValueError, match="130 classes"):
        labels_uri(labels, dict.fromkeys(range(130), RED), 480)


@pytest.mark.parametrize(
    "image",
    [
        np.full((30, 60), 7, np.uint8),
        np.full((30, 60, 1), 0.5),
        np.arange(30 * 60 * 7, dtype=np.uint16).reshape(30, 60, 7),
        np.random.default_rng(0).normal(size=(30, 60, 3)).astype(np.float16),
        np.zeros((30, 60, 2), bool),
    ],
    ids=["gray", "one channel", "seven channels", "float16", "bool"],
)
def test_any_image_becomes_a_jpeg(image):
    before = image.copy()
    shown = decoded(photo_uri(image, 40))
    assert shown.size == (40, 20)
    assert shown.mode == "RGB"
    assert np.array_equal(image, before)


def test_colors_of_a_photograph_stay():
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, :24] = (200, 100, 50)
    found = np.asarray(decoded(photo_uri(image, 480, quality=95)))
    assert np.abs(found[16, 8].astype(int) - (200, 100, 50)).max() <= 4
    assert found[16, 40].max() <= 4


def test_nearest_takes_pixels_and_mixes_none():
    array = np.array([[1, 2, 3], [4, 5, 6]])
    assert nearest(array, (4, 6)).tolist() == np.kron(array, np.ones((2, 2), int)).tolist()
    assert nearest(nearest(array, (6, 9)), array.shape).tolist() == array.tolist()
    assert nearest(array, (1, 1)).tolist() == [[5]]
