"""The region map of Scenes, classes that win no region, and later changes of parameters."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline

from hybridseg import DenseCRF, GraphCut, Scene, SuperpixelClassifier
from hybridseg.features import SLIC
from tests.subjects import forest, halves, superpixels


class CountedSLIC(SLIC):
    """SLIC that counts its runs over all copies."""

    runs = 0

    def __call__(self, *args, **options):
        CountedSLIC.runs += 1
        return super().__call__(*args, **options)


def quarters(*, line=0):
    """Two colors on the left and right, with ``line`` columns of a third class between them."""
    labels = np.repeat([[0, 5]], 20, axis=1).repeat(24, axis=0)
    labels[:, 20 : 20 + line] = 9
    image = np.where(labels == 5, 200, 40).astype(np.uint8)
    return [image], [labels]


def test_scenes_hold_the_regions_and_they_are_made_once(monkeypatch):
    images, labels = halves()
    model = SuperpixelClassifier(forest(), superpixels=CountedSLIC(60)).fit(images, labels)
    monkeypatch.setattr(CountedSLIC, "runs", 0)
    scene = model.transform(images)[0]
    assert CountedSLIC.runs == 0  # regions are computed lazily
    np.testing.assert_array_equal(scene.region_costs.regions, scene.regions)
    np.testing.assert_array_equal(scene.regions, SLIC(60)(images[0]))
    assert CountedSLIC.runs == 1


def test_dense_crf_before_a_cut_on_regions():
    images, labels = halves()
    crf = DenseCRF(n_iter=2)
    model = make_pipeline(superpixels(), crf, GraphCut(on="regions")).fit(images, labels)
    found = model.predict(images)[0]
    regions = model[0].transform(images)[0].regions
    assert found.shape == labels[0].shape
    for region in range(regions.max() + 1):
        assert len(np.unique(found[regions == region])) == 1


def test_given_regions_are_used_and_left_alone():
    images, labels = halves()
    own = [np.arange(i[..., 0].size, dtype=np.int64).reshape(i.shape[:2]) // 16 for i in images]
    scenes = [Scene(i, regions=r) for i, r in zip(images, own, strict=True)]
    before = own[0].copy()
    found = superpixels().fit(scenes, labels).transform(scenes)[0]
    np.testing.assert_array_equal(found.region_costs.regions, own[0])
    np.testing.assert_array_equal(found.regions, own[0])
    own[0][0, 0] += 1  # the given array stays writable
    np.testing.assert_array_equal(found.regions, before)


@pytest.mark.parametrize("when", ["fit", "predict"])
def test_bad_regions(when):
    images, labels = halves()
    model = superpixels().fit(images, labels)
    act = (lambda s: model.fit(s, labels)) if when == "fit" else model.predict
    for regions, message in (
        (np.full(images[0].shape[:2], -1), "scene.regions holds negative numbers"),
        (np.zeros((3, 4), int), "scene.regions has shape"),
    ):
        with pytest.raises(ValueError, match=message):
            act([Scene(images[0], regions=regions), *images[1:]])


def test_class_that_wins_no_region_is_announced():
    images, labels = quarters(line=1)
    model = SuperpixelClassifier(forest(), superpixels=SLIC(12))
    with pytest.warns(UserWarning, match=r"the classes \[9\] have.*raise n_segments") as caught:
        model.fit(images, labels)
    assert caught[0].filename == __file__
    assert model.predict_proba(images)[0].shape == (24, 40, 3)
    assert set(np.unique(model.predict(images)[0])) == {0, 5}


def test_one_class_wins_every_region():
    images, labels = quarters()
    labels[0][:, 15:] = -1
    labels[0][3, 3] = 5
    with pytest.raises(ValueError, match=r"classes \[5\] have.*raise n_segments.*Only \[0\]"):
        SuperpixelClassifier(forest(), superpixels=SLIC(12)).fit(images, labels)


def test_new_parameters_do_not_reach_a_fitted_model():
    images, labels = halves()
    model = superpixels().fit(images, labels)
    expected = model.transform([images[0].copy()])[0].regions
    scene = model.transform([images[0].copy()])[0]
    model.set_params(superpixels__n_segments=5)
    np.testing.assert_array_equal(scene.regions, expected)
    np.testing.assert_array_equal(model.transform(images)[0].regions, expected)
