from functools import partial

import numpy as np
import pytest

from hybridseg.inference import mean_field
from hybridseg.pairwise import (
    BilateralKernel,
    FeatureKernel,
    GaussianKernel,
    as_compatibility,
    dense,
    dense_energy,
)
from tests.oracles.dense import mean_field as oracle

POTTS = 1.0 - np.eye(3)


@pytest.fixture
def scene(rng):
    image = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return rng.integers(0, 3, (5, 7)), rng.random((5, 7, 3)) * 4, image


def terms_of(kernels, image):
    colors = image.astype(np.float32)
    return [
        (kernel.weight, oracle.normalized(oracle.gaussian_matrix(kernel.embed(colors))))
        for kernel in kernels
    ]


DEFAULTS = [GaussianKernel(3.0, 3.0), BilateralKernel(10.0, 80.0, 13.0)]


def test_energy_equals_the_sum_over_pairs(scene):
    labels, unary, image = scene
    expected = oracle.dense_energy(labels, unary.reshape(-1, 3), terms_of(DEFAULTS, image), POTTS)
    assert dense_energy(labels, unary, image) == pytest.approx(expected, rel=1e-6)


def test_energy_with_a_matrix_and_a_further_kernel(scene, rng):
    labels, unary, image = scene
    matrix = rng.standard_normal((3, 3))
    matrix += matrix.T
    further = FeatureKernel(2.0, rng.random((5, 7, 2)))
    kernels = [GaussianKernel(1.5, 2.0), BilateralKernel(4.0, 5.0, 40.0), further]
    found = dense_energy(
        labels,
        unary,
        image,
        spatial_weight=1.5,
        spatial_width=2.0,
        bilateral_weight=4.0,
        bilateral_width=5.0,
        bilateral_color=40.0,
        compatibility=matrix,
        kernels=[further],
    )
    expected = oracle.dense_energy(labels, unary.reshape(-1, 3), terms_of(kernels, image), matrix)
    assert found == pytest.approx(expected, rel=1e-6)


def test_energy_does_not_depend_on_the_blocks(scene, monkeypatch):
    whole = dense_energy(*scene)
    monkeypatch.setattr(dense, "_MAX_BLOCK_BYTES", 8 * 35 * 4)
    assert dense_energy(*scene) == pytest.approx(whole, rel=1e-12)


def test_energy_of_relabeled_and_transposed_images(scene):
    labels, unary, image = scene
    whole = dense_energy(labels, unary, image)
    order = np.array([2, 0, 1])
    renamed = dense_energy(np.argsort(order)[labels], unary[..., order], image)
    turned = dense_energy(labels.T, unary.swapaxes(0, 1), image.swapaxes(0, 1))
    flipped = dense_energy(labels[:, ::-1], unary[:, ::-1], image[:, ::-1])
    assert [renamed, turned, flipped] == pytest.approx([whole] * 3, rel=1e-6)


def test_energy_without_pairs_is_the_unary(scene):
    labels, unary, image = scene
    found = dense_energy(labels, unary, image, spatial_weight=0.0, bilateral_weight=0.0)
    assert found == pytest.approx(np.take_along_axis(unary, labels[..., None], -1).sum())
    smooth = np.ones_like(labels)  # equal labels cost nothing under Potts
    assert dense_energy(smooth, unary, image) == pytest.approx(unary[..., 1].sum())


def test_energy_of_valid_pixels_equals_that_of_the_cut_out(scene):
    labels, unary, image = scene
    valid = np.zeros((5, 7), bool)
    valid[:3] = True
    labels = np.where(valid, labels, -1)
    found = dense_energy(labels, unary, image, valid=valid)
    assert found == pytest.approx(dense_energy(labels[:3], unary[:3], image[:3]), rel=1e-9)
    assert dense_energy(labels, unary, image, valid=np.zeros((5, 7), bool)) == 0


def test_energy_of_a_volume_with_spacing(rng):
    image = rng.integers(0, 256, (3, 4, 5), dtype=np.uint8)
    labels, unary = rng.integers(0, 2, (3, 4, 5)), rng.random((3, 4, 5, 2))
    found = dense_energy(labels, unary, image, spacing=(3.0, 1.0, 2.0))
    terms = [
        (k.weight, k.embed(image[..., None].astype(np.float32), (3.0, 1.0, 2.0))) for k in DEFAULTS
    ]
    terms = [(w, oracle.normalized(oracle.gaussian_matrix(f))) for w, f in terms]
    expected = oracle.dense_energy(labels, unary.reshape(-1, 2), terms, 1.0 - np.eye(2))
    assert found == pytest.approx(expected, rel=1e-6)


def test_features_are_distances_in_the_unit_of_spacing():
    colors = np.zeros((2, 3, 4, 1), np.float32)
    colors[1, 2, 3] = 30.0
    spacing = (5.0, 2.0, 0.5)
    near = GaussianKernel(1.0, 2.0).embed(colors, spacing)
    assert near.shape == (24, 3)
    np.testing.assert_allclose(near[-1] - near[0], [3 * 0.5 / 2, 2 * 2 / 2, 5 / 2])
    both = BilateralKernel(1.0, 2.0, 10.0).embed(colors, spacing)
    np.testing.assert_allclose(both[-1] - both[0], [0.75, 2, 2.5, 3])
    np.testing.assert_array_equal(both[:, :3], near)


def test_feature_kernel_takes_an_array_or_a_callable(rng):
    colors = rng.random((3, 4, 2), dtype=np.float32) * 255
    array = colors.astype(np.float16)[::-1][::-1] / 8
    array.setflags(write=False)
    fixed = FeatureKernel(1.0, array).embed(colors)
    assert fixed.dtype == np.float32
    assert fixed.shape == (12, 2)
    np.testing.assert_array_equal(fixed, array.reshape(-1, 2))
    seen = []
    called = FeatureKernel(1.0, lambda c, s: seen.append(s) or c / 50).embed(colors, (2.0, 1.0))
    np.testing.assert_allclose(called, colors.reshape(-1, 2) / 50)
    assert seen == [(2.0, 1.0)]


def test_compatibility():
    np.testing.assert_array_equal(as_compatibility("potts", 3), POTTS)
    given = [[0, 2], [2, 1]]
    matrix = as_compatibility(given, 2)
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, given)
    nearly = as_compatibility([[0, 2, 1e-9], [2, 1, 0], [-1e-9, 0, 0]], 3)  # a rounding error
    np.testing.assert_array_equal(nearly, nearly.T)


@pytest.mark.parametrize(
    ("compatibility", "message"),
    [
        ("pots", "compatibility='pots'; expected one of 'potts'"),
        (np.zeros((2, 3)), r"compatibility has shape \(2, 3\).*\(3, 3\)"),
        ([["a"] * 3] * 3, "dtype <U1; expected 'potts' or real"),
        (np.full((3, 3), np.nan), "compatibility holds NaN"),
        (np.full((3, 3), 1e30), "compatibility holds a cost of size 1e.30"),
        (np.triu(np.ones((3, 3))), r"compatibility\[0, 1\]=1.0 but compatibility\[1, 0\]=0.0"),
    ],
)
def test_bad_compatibility(compatibility, message):
    with pytest.raises(ValueError, match=message):
        as_compatibility(compatibility, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": np.full((5, 7), 3)}, ValueError, r"labels run from 3 to 3.*0\.\.2"),
        ({"labels": np.full((5, 7), -1)}, ValueError, "labels run from -1"),
        ({"labels": np.zeros((7, 5), int)}, ValueError, r"labels has shape \(7, 5\)"),
        ({"image": np.zeros((7, 5), np.uint8)}, ValueError, r"unary has shape \(5, 7, 3\)"),
        ({"unary": np.zeros((35, 3))}, ValueError, r"unary has shape \(35, 3\)"),
        ({"spatial_weight": -1.0}, ValueError, "spatial_weight=-1"),
        ({"bilateral_color": 0.0}, ValueError, "bilateral_color=0"),
        ({"kernels": [3.0]}, TypeError, r"kernels\[0\] is a float"),
        (
            {"kernels": [FeatureKernel(1.0, np.zeros((4, 4, 2)))]},
            ValueError,
            r"features has shape \(4, 4, 2\); expected \(5, 7, 'F'\)",
        ),
        (
            {"kernels": [FeatureKernel(1.0, np.full((5, 7, 2), np.inf))]},
            ValueError,
            "FeatureKernel returns NaN or infinite features",
        ),
    ],
)
def test_bad_arguments(scene, change, error, message):
    given = dict(zip(("labels", "unary", "image"), scene, strict=True))
    with pytest.raises(error, match=message):
        dense_energy(**(given | change))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GaussianKernel(-1.0, 3.0), "weight=-1"),
        (lambda: GaussianKernel(1.0, 0.0), "width=0"),
        (lambda: BilateralKernel(1.0, 3.0, -2.0), "color=-2"),
        (lambda: FeatureKernel(float("nan"), np.zeros((2, 2, 1))), "weight=nan"),
    ],
)
def test_bad_kernels(make, message):
    with pytest.raises(ValueError, match=message):
        make()


class Custom:
    weight = 2.0

    def __init__(self, features):
        self.features = features

    def embed(self, colors, spacing=None):
        return self.features


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.zeros((34, 2)), r"Custom returns features of shape \(34, 2\); expected \(35, d\)"),
        (np.zeros((70, 2)), r"features of shape \(70, 2\); expected \(35, d\)"),
        (np.zeros((5, 7, 2)), r"features of shape \(5, 7, 2\); expected \(35, d\)"),
        (np.zeros((35, 0)), r"features of shape \(35, 0\)"),
        (np.full((35, 2), "a"), "features of dtype <U1; expected real numbers"),
        (np.full((35, 2), 1e300), "NaN or infinite"),
        (np.full((35, 2), 1e17), r"features up to 1e\+17; expected at most 1e\+12"),
    ],
)
def test_results_of_a_users_kernel_are_checked(scene, features, message, masked):
    labels, unary, image = scene
    valid = np.ones((5, 7), bool) if masked else None
    for solve in (mean_field, partial(dense_energy, labels)):
        with pytest.raises((TypeError, ValueError), match=message):
            solve(unary, image, kernels=[Custom(features)], valid=valid)


def test_features_of_any_layout_and_dtype_are_the_same_features(scene, rng):
    labels, unary, image = scene
    features = rng.integers(0, 5, (35, 2))
    expected = dense_energy(labels, unary, image, kernels=[Custom(features.astype(np.float32))])
    for given in (features, np.asfortranarray(features, np.float64), features.tolist()):
        assert dense_energy(labels, unary, image, kernels=[Custom(given)]) == expected
        assert np.isfinite(mean_field(unary, image, kernels=[Custom(given)]).marginals).all()


def test_lattices_beyond_32_bits_are_refused(scene):
    _, unary, image = scene
    wide = np.broadcast_to(np.float32(0), (35, 2**26))
    with pytest.raises(ValueError, match=r"< 2\*\*31"):
        mean_field(unary, image, kernels=[Custom(wide)])
