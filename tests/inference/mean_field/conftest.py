"""A photograph with noisy costs, and the model of its dense kernels."""

import pytest

from hybridseg.inference.mean_field.dense_model import DenseModel
from tests.inference.mean_field.test_dense_crf import noisy_costs, photograph


@pytest.fixture(scope="module")
def unary_and_image():
    image = photograph()
    return noisy_costs(image), image


@pytest.fixture(scope="module")
def model(unary_and_image):
    return DenseModel.of(unary_and_image[1])
