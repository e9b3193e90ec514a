"""All methods see the same images, and the scores equal those of the metrics."""

import numpy as np
import pytest

from hybridseg import GraphCut, GridCRF
from hybridseg.metrics import boundary_iou, mean_iou
from hybridseg.report.experiment import (
    Samples,
    environment,
    evaluate,
    refine_all,
    shrunk,
    shrunk_shape,
)
from tests.subjects import halves, pixels, superpixels


def samples(n=3):
    images, labels = halves()
    return Samples([f"image {i}" for i in range(n)], images[:n], labels[:n])


@pytest.fixture(scope="module")
def results():
    train = samples(2)
    segmenters = {"pixels": pixels(random_state=0), "regions": superpixels(random_state=0)}
    refiners = {"cut": GraphCut(), "grid": GridCRF()}
    told = []
    found = evaluate(segmenters, refiners, train, samples(), n_shown=2, advance=told.append)
    return found, told


def test_there_is_a_row_for_each_segmenter_alone_and_with_each_refiner(results):
    found, told = results
    names = [(row.unary, row.refiner) for row in found.rows]
    assert names == [(u, r) for u in ("pixels", "regions") for r in ("", "cut", "grid")]
    assert told == ["pixels"] * 4 + ["regions"] * 4  # a training and three images for each
    assert [len(rows) for rows in found.image_rows] == [6, 6]
    assert [len(maps) for maps in found.predictions] == [6, 6]


def test_scores_and_seconds_are_those_of_the_images(results):
    found, _ = results
    truth = samples().labels
    for i in range(2):
        for row, prediction in zip(found.image_rows[i], found.predictions[i], strict=True):
            assert row.mean_iou == mean_iou(truth[i], prediction)
            assert row.boundary_iou == boundary_iou(truth[i], prediction)
    for k, row in enumerate(found.rows):
        parts = [found.image_rows[i][k] for i in range(2)]
        assert row.costs_seconds > sum(part.costs_seconds for part in parts)
        assert {part.fit_seconds for part in parts} == {row.fit_seconds}
        assert (row.refine_seconds > 0) == bool(row.refiner)


def test_refiners_start_from_the_same_costs():
    train = samples(2)
    fitted = superpixels(random_state=0).fit(train.images, train.labels)
    image = samples().images[2]
    alone, cut = refine_all(fitted, image, {"cut": GraphCut()})
    np.testing.assert_array_equal(alone.labels, fitted.predict([image])[0])
    expected = GraphCut().predict(fitted.transform([image]))[0]
    np.testing.assert_array_equal(cut.labels, expected)
    assert alone.costs_seconds == cut.costs_seconds > 0
    wide = refine_all(fitted, image, {}, (40, 52))[0].labels
    np.testing.assert_array_equal(wide, np.kron(alone.labels, np.ones((2, 2), int)))


@pytest.mark.parametrize(
    ("shape", "most", "expected"),
    [
        ((40, 60), None, (40, 60)),
        ((40, 60), 60, (40, 60)),
        ((40, 60), 30, (20, 30)),
        ((60, 40), 30, (30, 20)),
        ((1000, 2), 10, (10, 1)),
    ],
)
def test_proportions_stay(shape, most, expected):
    assert shrunk_shape(shape, most) == expected


def test_images_shrink_with_their_labels(rng):
    labels = np.kron(rng.integers(-1, 3, (5, 6)), np.ones((4, 4), int))
    image = (labels * 60 + 60).astype(np.uint8)[..., np.newaxis]
    small, small_labels = shrunk(image, labels, 6)
    assert small.dtype == np.uint8
    assert small.shape == (5, 6, 1)
    np.testing.assert_array_equal(small_labels, labels[2::4, 2::4])
    assert set(np.unique(small_labels)) <= set(np.unique(labels))
    assert shrunk(image, labels, None)[0] is image
    assert shrunk(image, None, 6)[1] is None
    flat = shrunk(np.full((8, 8), 0.25, np.float32), None, 4)[0]
    np.testing.assert_allclose(flat, 0.25, rtol=1e-6)


def test_what_is_not_installed_is_said(monkeypatch):
    found = environment()
    assert found["numpy"] == np.__version__
    monkeypatch.setattr("hybridseg.report.experiment.metadata.version", _absent)
    assert environment()["skorch"] == "not installed"


def _absent(package):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(package)
