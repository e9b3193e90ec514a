"""Random changes of crops."""

import numpy as np
import pytest

from hybridseg.deep.training.augment import zoomed
from hybridseg.unary import Augmentation
from tests.deep.hands import hand, side_of
from tests.deep.subjects import IMAGES, LABELS, quick

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def ramps(shape):
    return np.stack(np.indices(shape), axis=-1).astype(np.float32)


@pytest.mark.parametrize(
    ("before", "after"), [((8, 12), (16, 24)), ((16, 20), (8, 10)), ((4, 6, 8), (8, 12, 16))]
)
def test_zoom_moves_colors_and_labels_together(before, after):
    labels = np.arange(np.prod(before)).reshape(before)
    colors, found = zoomed(ramps(before), labels, after)
    assert (colors.shape, found.shape) == ((*after, len(before)), after)
    expected = np.stack(np.unravel_index(found, before), axis=-1)
    inner = (slice(2, -2),) * len(after)
    assert np.abs(colors[inner] - expected[inner]).max() <= 0.76


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"symmetry": "round"}, "symmetry='round'; expected one of 'upright'"),
        ({"scale": (2.0, 1.0)}, r"scale=\(2.0, 1.0\); expected two factors"),
        ({"scale": 2.0}, "scale=2.0; expected two factors"),
        ({"contrast": 1.5}, "contrast=1.5"),
        ({"tint": -1}, "tint=-1"),
    ],
)
def test_augmentations_mistakes_are_named(wrong, match):
    with pytest.raises(ValueError, match=match):
        Augmentation(**wrong)


@pytest.mark.parametrize(
    ("symmetry", "shape", "n_views"),
    [
        *[("none", (3, 3), 1), ("upright", (3, 3), 2), ("dihedral", (3, 3), 8)],
        *[("dihedral", (2, 3), 4), ("upright", (2, 3, 3), 2), ("dihedral", (2, 3, 3), 16)],
    ],
)
def test_augmentation_moves_colors_and_labels_together(symmetry, shape, n_views):
    rng = np.random.default_rng(0)
    labels = np.arange(np.prod(shape)).reshape(shape)
    views, augment = set(), Augmentation(symmetry)
    for _ in range(200):
        colors, moved = augment(labels[..., np.newaxis].astype(np.float32), labels, rng)
        # The jitter is one affine change of the colors.
        assert abs(np.corrcoef(colors.ravel(), moved.ravel())[0, 1] - 1) < 1e-5
        views.add(tuple(moved.ravel()))
    assert len(views) == n_views


def test_an_augmentation_of_ones_own():
    def everything_is_one(colors, labels, rng):
        return colors, np.where(labels >= 0, 1, -1)

    model = quick(augment=everything_is_one, max_epochs=6, lr=0.1).fit(IMAGES, LABELS)
    assert (model.predict(IMAGES[:1])[0] == 1).all()


@pytest.mark.parametrize("symmetry", ["upright", "dihedral"])
@pytest.mark.parametrize("side", [1, 2])
def test_a_mirrored_crop_holds_the_other_class_and_a_turned_one_the_same(symmetry, side):
    """After any augmentation, the labels are those of the changed image."""
    image, labels = hand(side)
    labels[0, 0] = -1
    augment = Augmentation(symmetry, contrast=0, brightness=0, tint=0, mirrored=(0, 2, 1))
    seen = set()
    for seed in range(60):
        rng = np.random.default_rng(seed)
        colors, found = augment(image[..., None].astype(np.float32), labels, rng)
        expected = np.where(colors[..., 0] > 0, side_of(colors[..., 0]), 0)
        np.testing.assert_array_equal(found[found >= 0], expected[found >= 0])
        assert (found < 0).sum() == 1
        assert found.dtype == labels.dtype
        seen.add((colors.tobytes(), found.max()))
    assert len(seen) == {"upright": 2, "dihedral": 8}[symmetry]
    plain = Augmentation(symmetry, contrast=0, brightness=0, tint=0)
    for seed in range(10):
        both = [
            which(image[..., None], labels, np.random.default_rng(seed))
            for which in (augment, plain)
        ]
        np.testing.assert_array_equal(both[0][0], both[1][0])  # colors are changed alike
        assert set(np.unique(both[1][1])) == {-1, 0, side}


def lateral(rng, n_images):
    """Gray images with an arrow that points to the right, class 1, or left, class 2."""
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
