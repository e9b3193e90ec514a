"""Classes that are each other's mirror images stay apart where pictures are mirrored."""

import itertools

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from hybridseg import PretrainedSegmenter  # noqa: E402
from hybridseg.deep.prediction.views import mirrored_classes  # noqa: E402
from hybridseg.unary import Augmentation, Views  # noqa: E402


def hand(side):
    """A picture of a hand, grey 200, whose thumb, grey 100, is to its right or left; its labels."""
    picture = np.zeros((6, 6), np.uint8)
    picture[1:5, 2:4] = 200
    picture[4, 4 if side == 1 else 1] = 100
    return picture, np.where(picture > 0, side, 0)


def side_of(picture):
    """1 or 2, by the thumb, for pictures of any orientation: what no turn changes."""
    grey = np.asarray(picture, float)
    body, thumb = np.argwhere(grey > 150), np.argwhere((grey > 50) & (grey < 150))[0]
    if np.ptp(body[:, 0]) > np.ptp(body[:, 1]):  # upright: along the rows
        across, along = 1, 0
    else:
        across, along = 0, 1
    middle = body.mean(axis=0)
    up = np.zeros(2)
    up[along] = np.sign(middle[along] - thumb[along])  # from the thumb's end to the fingers
    right = np.zeros(2)
    right[across] = np.sign(thumb[across] - middle[across])
    return 1 if up[0] * right[1] - up[1] * right[0] < 0 else 2


@pytest.mark.parametrize("side", [1, 2])
def test_the_hands_of_these_tests_are_told_by_no_turn(side):
    picture, _ = hand(side)
    for turns in range(4):
        assert side_of(np.rot90(picture, turns)) == side
        assert side_of(np.fliplr(np.rot90(picture, turns))) == 3 - side


@pytest.mark.parametrize("symmetry", ["upright", "dihedral"])
@pytest.mark.parametrize("side", [1, 2])
def test_a_mirrored_crop_holds_the_other_class_and_a_turned_one_the_same(symmetry, side):
    """Whatever the changes, labels are those of the picture that is seen."""
    picture, labels = hand(side)
    labels[0, 0] = -1
    augment = Augmentation(symmetry, contrast=0, brightness=0, tint=0, mirrored=(0, 2, 1))
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        colors, found = augment(picture[..., None].astype(np.float32), labels, rng)
        expected = np.where(colors[..., 0] > 0, side_of(colors[..., 0]), 0)
        np.testing.assert_array_equal(found[found >= 0], expected[found >= 0])
        assert (found < 0).sum() == 1
        assert found.dtype == labels.dtype
        seen.add((colors.tobytes(), found.max()))
    assert len(seen) == {"upright": 2, "dihedral": 8}[symmetry]
    plain = Augmentation(symmetry, contrast=0, brightness=0, tint=0)
    for seed in range(10):
        both = [
            which(picture[..., None], labels, np.random.default_rng(seed))
            for which in (augment, plain)
        ]
        np.testing.assert_array_equal(both[0][0], both[1][0])  # colours are changed alike
        assert set(np.unique(both[1][1])) == {-1, 0, side}


class OfHands(torch.nn.Module):
    """Logits of three classes, where the hand is: 5 for the side that it has."""

    def forward(self, images):
        grey = images[:, 0]
        logits = torch.zeros(len(images), 3, *grey.shape[1:])
        logits[:, 0] = 2
        for one, picture in zip(logits, grey, strict=True):
            one[side_of(picture.numpy()), picture > 50] = 5
        return logits


@pytest.mark.parametrize("tta", ["mirror", Views(mirror=(-2, -1)), Views(mirror=(-2,))])
@pytest.mark.parametrize("average", ["proba", "log_proba"])
@pytest.mark.parametrize("side", [1, 2])
def test_views_agree_on_sides(tta, average, side):
    """What a network is sure of in each view it is sure of in all together."""
    if isinstance(tta, Views):
        tta = Views(mirror=tta.mirror, average=average)
    picture, labels = hand(side)
    values = np.array([0, 10, 20])
    options = {"n_channels": 1, "tta": tta}
    plain = PretrainedSegmenter(OfHands(), values, n_channels=1).predict_proba([picture])[0]
    model = PretrainedSegmenter(OfHands(), values, mirror_pairs=[(20, 10)], **options)
    np.testing.assert_array_equal(model.predict([picture])[0], values[labels])
    np.testing.assert_allclose(model.predict_proba([picture])[0], plain, atol=1e-6)
    mixed = PretrainedSegmenter(OfHands(), values, **options).predict_proba([picture])[0]
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
    picture, _ = hand(1)
    model = PretrainedSegmenter(OfHands(), range(3), n_channels=1, mirror_pairs=pairs)
    with pytest.raises(ValueError, match=match):
        model.predict([picture])
    deep = pytest.importorskip("hybridseg").DeepSegmenter
    segmenter = deep(network_options={"width": 4, "depth": 1}, mirror_pairs=pairs)
    maps = [np.arange(36).reshape(6, 6) % 3]
    with pytest.raises(ValueError, match=match):
        segmenter.fit([picture], maps)


def lateral(rng, n_images):
    """Grey pictures with an arrow that points to the right, class 1, or left, class 2."""
    images, maps = [], []
    for _ in range(n_images):
        labels = np.zeros((24, 24), int)
        image = rng.normal(60, 4, labels.shape)
        for top in (2, 13):
            left, side = int(rng.integers(2, 10)), int(rng.integers(1, 3))
            ramp = np.linspace(90, 240, 12)[:: 1 if side == 1 else -1]
            image[top : top + 8, left : left + 12] = ramp
            labels[top : top + 8, left : left + 12] = side
        images.append(np.clip(image, 0, 255).astype(np.uint8))
        maps.append(labels)
    return images, maps


def test_a_network_learns_left_from_right_although_crops_are_mirrored(rng):
    pytest.importorskip("skorch")
    from hybridseg import DeepSegmenter, DomainAdapter

    images, maps = lateral(rng, 8)
    options = {"width": 8, "depth": 2}
    model = DeepSegmenter(
        network_options=options,
        max_epochs=8,
        crops_per_image=8,
        crop_size=24,
        random_state=0,
        mirror_pairs=((1, 2),),
        tta="mirror",
    ).fit(images[:6], maps[:6])
    assert model.score(images[6:], maps[6:]) > 0.9
    assert DomainAdapter(model).fit(images).score(images[6:], maps[6:]) > 0.9
    model.set_params(mirror_pairs=())
    assert model.score(images[6:], maps[6:]) < 0.8
