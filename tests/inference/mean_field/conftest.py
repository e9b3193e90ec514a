"""A noisy picture, and the model of its dense kernels."""

import pytest

from hybridseg.inference.mean_field.dense_model import DenseModel
from tests.inference.mean_field.test_dense_crf import noisy_costs, photograph


@pytest.fixture(scope="module")
def picture():
    image = photograph()
    return noisy_costs(image), image


@pytest.fixture(scope="module")
def model(picture):
    return DenseModel.of(picture[1])
