"""Test-time views, and classes that are each other's mirror images."""

import itertools

import numpy as np
import pytest
import torch

from hybridseg import PretrainedSegmenter
from hybridseg.deep.prediction.views import mirrored_classes
from hybridseg.unary import (
    Views,
)
from tests.deep.hands import hand, side_of

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"scales": ()}, "scales is empty"),
        ({"scales": (0.0,)}, "a scale of scales=0.0"),
        ({"mirror": (0,)}, r"mirror=\(0,\); expected different axes counted from the last"),
        ({"mirror": (-1, -1)}, r"mirror=\(-1, -1\)"),
        ({"average": "max"}, "average='max'"),
    ],
)
def test_views_mistakes_are_named(wrong, match):
    with pytest.raises(ValueError, match=match):
        Views(**wrong)


@pytest.mark.parametrize("side", [1, 2])
def test_the_hands_of_these_tests_are_told_by_no_turn(side):
    image, _ = hand(side)
    for turns in range(4):
        assert side_of(np.rot90(image, turns)) == side
        assert side_of(np.fliplr(np.rot90(image, turns))) == 3 - side


class OfHands(torch.nn.Module):
    """A network of three classes: at a pixel of the hand its class has the logit 5."""

    def forward(self, images):
        gray = images[:, 0]
        logits = torch.zeros(len(images), 3, *gray.shape[1:])
        logits[:, 0] = 2
        for one, image in zip(logits, gray, strict=True):
            one[side_of(image.numpy()), image > 50] = 5
        return logits


@pytest.mark.parametrize("tta", ["mirror", Views(mirror=(-2, -1)), Views(mirror=(-2,))])
@pytest.mark.parametrize("average", ["proba", "log_proba"])
@pytest.mark.parametrize("side", [1, 2])
def test_views_agree_on_sides(tta, average, side):
    """Predictions that are confident in each view are confident in their average."""
    if isinstance(tta, Views):
        tta = Views(mirror=tta.mirror, average=average)
    image, labels = hand(side)
    values = np.array([0, 10, 20])
    options = {"n_channels": 1, "tta": tta}
    plain = PretrainedSegmenter(OfHands(), values, n_channels=1).predict_proba([image])[0]
    model = PretrainedSegmenter(OfHands(), values, mirror_pairs=[(20, 10)], **options)
    np.testing.assert_array_equal(model.predict([image])[0], values[labels])
    np.testing.assert_allclose(model.predict_proba([image])[0], plain, atol=1e-6)
    mixed = PretrainedSegmenter(OfHands(), values, **options).predict_proba([image])[0]
    assert mixed[labels > 0].max() < 0.6


def test_views_of_volumes_swap_by_the_number_of_mirrorings():
    views = Views(mirror=(-3, -2, -1), mirrored=(1, 0))
    volume = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    asked = itertools.count()

    def score(image):
        mirrored = next(asked)
        odd = mirrored in (1, 2, 3, 7)  # no axis; one; one; one; two; two; two; three
        return image.flip(0) if odd else image

    found = views.scores(score, volume)
    torch.testing.assert_close(found, torch.log_softmax(volume, dim=0))
    assert next(asked) == 8


def test_pairs_are_positions_of_label_values():
    classes = np.array([0, 3, 5, 9, 200])
    assert mirrored_classes(((5, 200),), classes) == (0, 1, 4, 3, 2)
    assert mirrored_classes([[3, 0], [9, 5]], classes) == (1, 0, 3, 2, 4)
    assert mirrored_classes(np.array([[3, 9]], np.uint8), classes) == (0, 3, 2, 1, 4)
    assert mirrored_classes((), classes) == ()


@pytest.mark.parametrize(
    ("pairs", "match"),
    [
        ((1, 2), r"expected pairs of label values, such as \(\(1, 2\),\)"),
        (((1, 2, 0),), "expected pairs of label values"),
        (((1, 2), (0,)), "expected pairs of label values"),
        (((0.5, 1),), "expected pairs of label values"),
        ((("left", "right"),), "expected pairs of label values"),
        (((1, 1),), "expected different label values"),
        (((1, 2), (2, 0)), "expected different label values, each in one pair"),
        (((1, 7),), r"of the classes \[0, 1, 2\]"),
    ],
)
def test_pairs_that_are_none_are_refused(pairs, match):
    image, _ = hand(1)
    model = PretrainedSegmenter(OfHands(), range(3), n_channels=1, mirror_pairs=pairs)
    with pytest.raises(ValueError, match=match):
        model.predict([image])
    deep = pytest.importorskip("hybridseg").DeepSegmenter
    segmenter = deep(network_options={"width": 4, "depth": 1}, mirror_pairs=pairs)
    maps = [np.arange(36).reshape(6, 6) % 3]
    with pytest.raises(ValueError, match=match):
        segmenter.fit([image], maps)
