import numpy as np
import pytest

from hybridseg.inference import mean_field
from hybridseg.inference.mean_field.dense_model import DenseModel
from hybridseg.pairwise import FeatureKernel
from tests.inference.mean_field.test_dense_crf import noisy_costs, photograph, reference
from tests.oracles.dense import mean_field as oracle


@pytest.mark.parametrize("weights", [{}, {"spatial_weight": 1.0, "bilateral_weight": 4.0}])
@pytest.mark.parametrize("n_labels", [1, 2, 4])
def test_a_model_equals_the_function(unary_and_image, model, n_labels, weights):
    unary, image = unary_and_image[0][..., :n_labels], unary_and_image[1]
    found = model.mean_field(unary, n_iter=4, **weights).marginals
    expected = mean_field(unary, image, n_iter=4, **weights).marginals
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_weight_of_zero_leaves_the_kernel_out(unary_and_image, model):
    unary, image = unary_and_image
    found = model.mean_field(unary, bilateral_weight=0.0).marginals
    expected = mean_field(unary, image, bilateral_weight=0.0).marginals
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_models_of_volumes_masks_and_further_kernels(rng):
    image = rng.integers(0, 256, (4, 6, 8), dtype=np.uint8)
    unary = rng.random((4, 6, 8, 3)) * 5
    valid = rng.random((4, 6, 8)) < 0.7
    options = {"bilateral_color": 60.0, "valid": valid, "spacing": (2.0, 1.0, 1.0)}
    options |= {"kernels": [FeatureKernel(2.0, rng.random((4, 6, 8, 2)))]}
    expected = mean_field(unary, image, **options).marginals
    found = DenseModel.of(image, **options).mean_field(unary).marginals
    np.testing.assert_allclose(found, expected, atol=1e-6)
    del options["valid"]
    expected = mean_field(unary, image, **options).marginals
    found = DenseModel.of(image, spatial_ndim=3, **options).mean_field(unary).marginals
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_nothing_valid(unary_and_image):
    model = DenseModel.of(unary_and_image[1], valid=np.zeros((24, 32), bool))
    result = model.mean_field(unary_and_image[0])
    np.testing.assert_array_equal(result.marginals, np.float32(0.25))


@pytest.mark.parametrize("compatibility", ["potts", [[0.1, 1.2], [1.2, -0.3]]])
def test_two_labels_equal_the_oracle(compatibility):
    image = photograph("coffee", (15, 21))
    unary = noisy_costs(image, n_labels=2)
    matrix = 1 - np.eye(2) if compatibility == "potts" else np.array(compatibility)
    found = mean_field(unary, image, compatibility=compatibility).marginals
    expected = reference(unary, image, oracle.lattice_matrix, compatibility=matrix)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_init_continues_a_run(unary_and_image, model):
    unary = unary_and_image[0]
    whole = model.mean_field(unary, n_iter=5).marginals
    half = model.mean_field(unary, n_iter=3).marginals
    np.testing.assert_allclose(
        model.mean_field(unary, n_iter=2, init=half).marginals, whole, atol=1e-5
    )
    start = model.mean_field(unary, n_iter=0, init=2 * half).marginals  # init is normalized
    np.testing.assert_allclose(start, half, atol=1e-6)
    both = model.mean_field(unary[..., :2], n_iter=4).marginals
    again = model.mean_field(unary[..., :2], n_iter=1, init=both).marginals
    onward = model.mean_field(unary[..., :2], n_iter=5).marginals
    np.testing.assert_allclose(again, onward, atol=1e-5)


def test_init_saves_iterations(unary_and_image, model):
    unary, _ = unary_and_image
    cold = model.mean_field(unary, n_iter=60, tol=1e-3)
    nearly = unary + np.random.default_rng(3).normal(0, 0.01, unary.shape)
    warm = model.mean_field(nearly, n_iter=60, tol=1e-3, init=cold.marginals)
    assert warm.n_iter < cold.n_iter


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"unary": np.zeros((24, 31, 4))}, ValueError, r"unary has shape \(24, 31, 4\)"),
        ({"spatial_weight": -1.0}, ValueError, "spatial_weight=-1"),
        ({"bilateral_weight": np.nan}, ValueError, "bilateral_weight=nan"),
        ({"prune": 0.0}, ValueError, "prune=0.0"),
        ({"prune": 1.0}, ValueError, "prune=1.0"),
        ({"prune": "yes"}, TypeError, "prune='yes'"),
        ({"init": np.zeros((24, 32, 4))}, ValueError, "init holds negative numbers, or only zeros"),
        ({"init": np.full((24, 32, 4), -1.0)}, ValueError, "init holds negative numbers"),
        ({"init": np.ones((24, 32, 3))}, ValueError, r"init has shape \(24, 32, 3\)"),
        ({"init": np.full((24, 32, 4), np.nan)}, ValueError, "init holds NaN"),
    ],
)
def test_bad_arguments(unary_and_image, model, change, error, message):
    with pytest.raises(error, match=message):
        model.mean_field(**({"unary": unary_and_image[0]} | change))


def test_bad_images():
    with pytest.raises(ValueError, match="bilateral_color=0"):
        DenseModel.of(np.zeros((4, 5)), bilateral_color=0.0)
    with pytest.raises(ValueError, match=r"valid has shape \(2, 2\)"):
        DenseModel.of(np.zeros((4, 5)), valid=np.ones((2, 2), bool))


def test_weights_beyond_float32_are_refused_as_by_the_function(unary_and_image, model):
    unary, image = unary_and_image
    options = {"spatial_weight": 1e30, "compatibility": 1e10 * (1 - np.eye(unary.shape[-1]))}
    for refuse in (model.mean_field, lambda unary, **given: mean_field(unary, image, **given)):
        with pytest.raises(ValueError, match=r"times the compatibility is 1e\+40"):
            refuse(unary, **options)
