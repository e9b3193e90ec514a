"""Features as tensors equal those of the kernels; colors are on the scale 0..255."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybridseg.deep.dense_features import (  # noqa: E402
    ColorScale,
    check_extent,
    joined,
    positions,
)
from hybridseg.pairwise import BilateralKernel, GaussianKernel  # noqa: E402


def double(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.1, 3.0), (2.0, 0.5, 1.0)])
@pytest.mark.parametrize("width", [3.0, 0.7, 80.0])
def test_positions_equal_those_of_the_kernel(spacing, width):
    shape = (5, 7, 3)[: len(spacing)]
    expected = GaussianKernel(1.0, width).embed(np.zeros((*shape, 1), np.float32), spacing)
    found = positions(shape, spacing, double(width), torch.float32)
    assert np.array_equal(found.numpy(), expected)


def test_joined_features_equal_those_of_the_bilateral_kernel():
    image = np.random.default_rng(0).random((6, 4, 3), np.float32) * 255
    expected = BilateralKernel(1.0, 20.0, 7.0).embed(image)
    colors = torch.from_numpy(image).movedim(-1, 0)[None] / 7
    found = joined(positions((6, 4), (1.0, 1.0), double(20.0), torch.float32), colors)
    assert np.array_equal(found[0].numpy(), expected)


def test_gradient_of_positions():
    width = double(2.3).requires_grad_()

    def of(width):
        return positions((3, 4), (1.0, 0.5), width, torch.float64)

    assert torch.autograd.gradcheck(of, (width,))


def scale(image_range="dtype", mean=None, std=None):
    return ColorScale.of(image_range, mean, std)


def test_every_form_of_an_image_gives_the_same_colors():
    image = torch.randint(256, (2, 3, 5, 4), dtype=torch.uint8)
    exact = image.float()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    normalized = (exact / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    forms = [
        (scale(), image),
        (scale(), exact / 255),
        (scale((0, 255)), exact),
        (scale((0, 255)), image.long()),
        (scale((-1, 1)), exact / 127.5 - 1),
        (scale(mean=mean.tolist(), std=std.tolist()), normalized),
        (scale((0, 255), mean=127.5, std=60), (exact - 127.5) / 60),
    ]
    for known, form in forms:
        assert torch.allclose(known.colors(form, torch.float32), exact, atol=1e-3)


@pytest.mark.parametrize(
    ("known", "image"),
    [
        (scale(), torch.full((1, 3, 2, 2), -1.5)),
        (scale(), torch.full((1, 3, 2, 2), 200.0)),
        (scale(), torch.full((1, 3, 2, 2), float("nan"))),
        (scale(), torch.full((1, 3, 2, 2), float("inf"))),
        (scale((0, 255)), torch.full((1, 3, 2, 2), -20.0)),
        (scale(mean=0.5, std=0.5), torch.full((1, 3, 2, 2), 200.0)),
    ],
)
def test_values_outside_of_the_range_are_refused(known, image):
    with pytest.raises(ValueError, match="pass image_mean and image_std"):
        known.colors(image, torch.float32)


def test_a_brightness_that_was_augmented_is_no_error():
    known = scale(mean=0.5, std=0.5)
    assert float(known.colors(torch.full((1, 3, 2, 2), 1.5), torch.float32).max()) > 255


def test_other_integers_need_a_range():
    with pytest.raises(TypeError, match=r"image_range=\(low, high\)"):
        scale().colors(torch.zeros((1, 1, 2, 2), dtype=torch.int16), torch.float32)


def test_mean_for_other_channels_is_refused():
    with pytest.raises(ValueError, match="1 channels, but image_mean has 3"):
        scale(mean=[0.5] * 3, std=[0.5] * 3).colors(torch.zeros(1, 1, 2, 2), torch.float32)


@pytest.mark.parametrize("image_range", ["image", (1, 0), (0, 1, 2), (0, float("nan"))])
def test_wrong_ranges_are_refused(image_range):
    with pytest.raises(ValueError, match="image_range="):
        scale(image_range)


@pytest.mark.parametrize(
    ("mean", "std"), [(0.5, None), (None, 0.5), ([0.5], [0.0]), ([0.5, 0.5], [1.0])]
)
def test_wrong_statistics_are_refused(mean, std):
    with pytest.raises(ValueError, match="image_mean="):
        scale(mean=mean, std=std)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e13])
def test_features_beyond_the_lattice_are_refused(value):
    check_extent(torch.ones(2, 2), "the kernel", "raise it")
    with pytest.raises(ValueError, match=r"the kernel has features .*: raise it"):
        check_extent(torch.full((2, 2), value), "the kernel", "raise it")
