"""Pixels that are scored."""

import numpy as np
import pytest

from hybridseg import Scene
from hybridseg.search.sampled import MAX_PIXELS, predicted_at, sampled_places
from tests.subjects import halves, pixels, superpixels


def test_all_pixels_of_small_images():
    labels = np.array([[0, -1, 1], [2, -1, -1]])
    places, weight = sampled_places(labels, 0)
    assert places.tolist() == [0, 2, 3]
    assert weight == 1


def test_large_images_are_sampled_evenly():
    labels = np.zeros((300, 400), int)
    labels[:, 100:] = 1
    labels[:50] = -1
    places, weight = sampled_places(labels, 3)
    assert len(places) == len(np.unique(places)) == MAX_PIXELS
    assert weight * len(places) == 250 * 400
    assert (labels.ravel()[places] >= 0).all()
    assert (labels.ravel()[places] == 0).mean() == pytest.approx(0.25, abs=0.01)
    assert np.array_equal(places, sampled_places(labels, 3)[0])


@pytest.mark.parametrize("make", [pixels, superpixels])
@pytest.mark.parametrize("shapes", [((24, 32), (30, 22)), ((6, 12, 14), (8, 10, 12))])
def test_predictions_are_those_of_the_whole_image(make, shapes):
    images, labels = halves(shapes, values=(3, 7, 9), channels=1)
    model = make().fit([image[..., 0] for image in images], labels)
    (scene,) = model.transform([Scene(images[0][..., 0], spatial_ndim=len(shapes[0]))])
    places = np.arange(5, labels[0].size, 7)
    expected = scene.prediction.ravel()[places]
    assert np.array_equal(predicted_at(model, scene, places), expected)
    assert len(np.unique(expected)) > 1
