"""What a survey tells of predictions, by its formulas; and which of two is better."""

import math

import numpy as np
import pytest

from hybridseg import ImageList, Scene
from hybridseg.deep.adaptation.survey import has_collapsed, is_surer, survey


class Fixed:
    """A segmenter that returns the probabilities of the Scenes."""

    classes_ = np.arange(3)

    def transform(self, scenes):
        return scenes


def scenes(rng, sharpness, shapes=((6, 8), (5, 4)), **known):
    logits = [sharpness * rng.normal(size=(*shape, 3)) for shape in shapes]
    return ImageList(Scene.from_logits(np.zeros(z.shape[:2], np.uint8), z, **known) for z in logits)


def test_all_pixels_of_all_images_count_alike(rng):
    given = scenes(rng, 3.0)
    found = survey(Fixed(), given)
    p = np.concatenate([scene.proba.reshape(-1, 3) for scene in given]).astype(float)
    labels, sure = p.argmax(axis=1), p.max(axis=1) >= 0.9
    assert found["mean_entropy"] == pytest.approx(-(p * np.log(p)).sum(axis=1).mean(), rel=1e-5)
    mean = p.mean(axis=0)
    information = -(mean * np.log(mean)).sum() - found["mean_entropy"]
    assert found["information"] == pytest.approx(information, rel=1e-4)
    assert found["confident"] == pytest.approx(sure.mean())
    assert found["class_share"] == pytest.approx([(labels == k).mean() for k in range(3)])
    assert found["class_confident"] == pytest.approx([sure[labels == k].mean() for k in range(3)])


def test_bounds_hold_at_every_sharpness(rng):
    for sharpness in (0.0, 0.1, 1.0, 10.0, 100.0):
        found = survey(Fixed(), scenes(rng, sharpness))
        assert -1e-6 <= found["information"] <= math.log(3) + 1e-6
        assert -1e-6 <= found["mean_entropy"] <= math.log(3) + 1e-6
        assert sum(found["class_share"]) == pytest.approx(1)
    assert found["confident"] > 0.9


def test_a_class_that_is_nowhere_has_no_confidence():
    logits = np.zeros((4, 5, 3))
    logits[..., 0] = 9
    found = survey(Fixed(), ImageList([Scene.from_logits(np.zeros((4, 5), np.uint8), logits)]))
    assert found["class_share"] == [1, 0, 0]
    assert found["class_confident"][0] == 1
    assert np.isnan(found["class_confident"][1:]).all()
    assert found["information"] == pytest.approx(0, abs=1e-5)


def test_pixels_that_are_not_valid_do_not_count(rng):
    (whole,) = scenes(rng, 2.0, ((6, 8),))
    valid = np.zeros((6, 8), bool)
    valid[:, :3] = True
    part = Scene.from_proba(np.zeros((6, 3), np.uint8), whole.proba[:, :3])
    found = survey(Fixed(), ImageList([whole.replace(valid=valid)]))
    for name, expected in survey(Fixed(), ImageList([part])).items():
        assert found[name] == pytest.approx(expected, rel=1e-5), name
    with pytest.raises(ValueError, match="X holds no valid pixel"):
        survey(Fixed(), ImageList([whole.replace(valid=np.zeros((6, 8), bool))]))


def facts(mean_entropy, information):
    return {"mean_entropy": mean_entropy, "information": information}


def test_less_entropy_or_much_more_information_is_better():
    before = facts(0.5, 0.4)
    assert is_surer(before, facts(0.49, 0.0))
    assert is_surer(before, facts(0.9, 0.61))
    assert not is_surer(before, facts(0.5, 0.59))
    assert not is_surer(before, facts(math.nan, math.nan))


def test_half_of_the_information_must_be_left():
    before = facts(0.5, 0.4)
    assert not has_collapsed(before, before)
    assert not has_collapsed(before, facts(0.0, 0.2))
    assert has_collapsed(before, facts(0.0, 0.19))
    assert has_collapsed(before, facts(math.nan, math.nan))
