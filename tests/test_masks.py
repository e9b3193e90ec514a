"""Invalid pixels change no result, no number of regions, and no score."""

import numpy as np
import pytest
from scipy.ndimage import label
from sklearn.ensemble import RandomForestClassifier
from sklearn.pipeline import make_pipeline

from hybridseg import (
    Blend,
    CrossFit,
    DenseCRF,
    GraphCut,
    GridCRF,
    LevelSet,
    PixelClassifier,
    RandomWalker,
    Scene,
    StackedSegmenter,
    SuperpixelClassifier,
)
from hybridseg.features import ETPS, SLIC, Felzenszwalb, PixelFeatures, etps, felzenszwalb, slic
from hybridseg.inference import DenseModel, mean_field, random_walker
from hybridseg.metrics import mean_iou
from hybridseg.pairwise import dense_energy, grid_weights
from hybridseg.space import nearest_valid
from tests.subjects import deep, halves

SUPERPIXELS = {
    "slic": lambda image, **options: slic(image, 15, **options),
    "etps": lambda image, **options: etps(image, 15, **options),
    "felzenszwalb": lambda image, **options: felzenszwalb(image, 60, min_size=5, **options),
}


def two_sides(rng, shape):
    """Two sides with noise, (*spatial, C)."""
    columns = np.arange(shape[-2]) >= shape[-2] // 2
    values = 80 + 80 * columns[:, np.newaxis] + rng.normal(0, 25, shape)
    return np.clip(values, 0, 255).astype(np.uint8)


def disk(shape, radius):
    places = np.indices(shape)
    center = (np.array(shape) - 1) / 2
    return np.hypot(places[0] - center[0], places[1] - center[1]) < radius


def shapes_of_masks():
    rows, columns = np.indices((90, 120))
    distance = np.hypot(rows - 45, columns - 60)
    yield "disk", distance < 40
    yield "ring", (distance < 44) & (distance > 25)
    yield "stripe", abs(rows - 0.7 * columns) < 8
    yield "corner", (rows < 15) | (columns > 110)
    yield "half", columns > rows
    yield "small rectangle", (rows > 70) & (rows < 85) & (columns > 3) & (columns < 40)
    yield "thread", abs(rows - 0.7 * columns) < 1.5


# --- superpixels ---


@pytest.mark.parametrize("name", SUPERPIXELS)
@pytest.mark.parametrize(
    ("shape", "box", "spacing"),
    [
        ((40, 50, 1), np.s_[7:31, 12:45], None),
        ((40, 50, 3), np.s_[:, 20:], (1e-4, 3e-4)),
        ((40, 50, 3), np.s_[39:, :], (2.0, 1.0)),
        ((9, 20, 25, 1), np.s_[2:8, 3:17, 5:], (3.0, 1.0, 1.0)),
        ((9, 20, 25, 1), np.s_[4:5, :, :], None),
    ],
)
def test_a_rectangle_is_an_image_cropped_to_it(rng, name, shape, box, spacing):
    image = two_sides(rng, shape)
    valid = np.zeros(shape[:-1], bool)
    valid[box] = True
    rank = len(shape) - 1
    find = SUPERPIXELS[name]
    found = find(image, valid=valid, spacing=spacing)
    expected = find(image[box], spacing=spacing, spatial_ndim=rank)
    np.testing.assert_array_equal(found[box], expected)
    assert (found[~valid] == -1).all()


@pytest.mark.parametrize(("name", "valid"), list(shapes_of_masks()))
def test_numbers_of_superpixels_are_those_inside(rng, name, valid):
    image = two_sides(rng, (90, 120, 3))
    for n_segments in (1, 7, 40, 150, int(valid.sum()) + 3):
        wanted = min(n_segments, int(valid.sum()))
        exact = etps(image, n_segments, valid=valid)
        least = max(wanted, label(valid)[1])
        assert exact.max() + 1 == least
        assert len(np.unique(exact[valid])) == least
        about = slic(image, n_segments, 40.0, valid=valid).max() + 1
        assert max(1, 0.7 * wanted - 3) <= about <= 1.35 * wanted + 4, (name, n_segments)


@pytest.mark.parametrize("shape", [(1, 50), (4, 4), (2, 90), (12, 17), (5, 6, 7), (1, 9, 8)])
def test_etps_makes_exactly_the_documented_number(rng, shape):
    image = rng.integers(0, 256, shape, dtype=np.uint8)
    for spacing in (1.0, (1000.0, *[1.0] * (len(shape) - 1)), (*[1.0] * (len(shape) - 1), 30.0)):
        for valid in (np.ones(shape, bool), rng.random(shape) < 0.8):
            for n_segments in (1, 3, 11, 30, image.size):
                found = etps(image, n_segments, spacing=spacing, valid=valid)
                expected = max(label(valid)[1], min(n_segments, int(valid.sum())))
                assert found.max() + 1 == expected


@pytest.mark.parametrize("make", [SLIC(20), ETPS(20), Felzenszwalb(60.0, min_size=9)])
def test_a_superpixel_classifier_makes_its_regions_of_the_valid_pixels(make):
    """The regions equal those of the image cropped to its valid pixels."""
    images, labels = halves()
    box = np.s_[3:22, 5:20]
    scenes, truths = [], []
    for image, truth in zip(images, labels, strict=True):
        valid = np.zeros(truth.shape, bool)
        valid[box] = True
        scenes.append(Scene(image, valid=valid))
        truths.append(truth)
    forest = RandomForestClassifier(5, random_state=0)
    model = SuperpixelClassifier(forest, superpixels=make, random_state=0)
    cropped = [image[box] for image in images], [truth[box] for truth in labels]
    masked = model.fit(scenes, truths).transform(scenes)
    assert masked[0].regions[box].max() == masked[0].regions.max() > 5
    assert masked[0].regions.min() == 0
    whole = model.fit(*cropped).transform(cropped[0])
    np.testing.assert_array_equal(masked[0].regions[box], whole[0].regions)


def test_a_scene_brings_regions_of_its_valid_pixels():
    images, labels = halves()
    valid = np.ones(labels[0].shape, bool)
    valid[:, :9] = False
    regions = slic(images[0], 20, valid=valid)
    scene = Scene(images[0], regions=regions, valid=valid)
    model = SuperpixelClassifier(RandomForestClassifier(5, random_state=0)).fit([scene], labels[:1])
    found = model.predict([scene])[0]
    np.testing.assert_array_equal(found == -1, ~valid)
    with pytest.raises(ValueError, match="scene.regions holds negative numbers"):
        model.transform([Scene(images[0], regions=regions)])[0].regions.max()


def test_superpixels_of_another_signature_need_not_know_masks():
    images, labels = halves()
    valid = np.ones(labels[0].shape, bool)
    valid[:6] = False

    def squares(colors, spacing, intensity_range):
        rows, columns = np.indices(colors.shape[:2])
        return rows // 4 * 100 + columns // 4

    scene = Scene(images[0], valid=valid)
    model = SuperpixelClassifier(RandomForestClassifier(5, random_state=0), superpixels=squares)
    found = model.fit([scene], labels[:1]).predict([scene])[0]
    np.testing.assert_array_equal(found == -1, ~valid)


# --- values of invalid pixels ---


def masked_problem(rng, shape=(18, 24), n_channels=2):
    """An image of floats, costs, seeds and a mask with a hole and a border."""
    truth = np.broadcast_to(np.arange(shape[-1]) >= shape[-1] // 2, shape).astype(int)
    image = np.clip(
        0.3 + 0.4 * truth[..., np.newaxis] + rng.normal(0, 0.1, (*shape, n_channels)), 0, 1
    )
    unary = np.where(np.eye(2, dtype=bool)[truth], 0.4, 1.2) + rng.normal(0, 0.4, (*shape, 2))
    seeds = np.where(rng.random(shape) < 0.1, truth, -1)
    valid = np.ones(shape, bool)
    valid[..., 5:9, 7:15] = False
    valid[..., :2] = False
    return image, unary, seeds, truth, valid


#: Values for invalid pixels: image, costs, labels.
NONSENSE = [(np.nan, np.nan, 7), (-1e30, np.inf, 1), (0.5, 0.0, -1), (np.inf, -np.inf, 0)]


def all_functions(image, unary, seeds, truth, valid):
    """Results of every function that takes a mask, as arrays (*spatial, ...) or numbers."""
    labels = np.where(valid, truth, seeds)
    for name, find in SUPERPIXELS.items():
        yield name, find(image, valid=valid)
        yield f"{name}, image", find(image, valid=valid, intensity_range="image")
    for offset, weights in grid_weights(image, valid=valid, spatial_ndim=valid.ndim).items():
        yield f"grid_weights {offset}", float(weights.sum(dtype=float))
    yield "random_walker", random_walker(image, seeds, valid=valid).labels
    widths = {"spatial_width": 2.0, "bilateral_width": 9.0}
    proba = np.full_like(unary, 0.5)
    proba[~valid] = unary[~valid]
    found = mean_field(unary, image, valid=valid, init=proba, **widths)
    yield "mean_field", found.marginals
    yield "mean_field pruned", mean_field(unary, image, valid=valid, prune=1e-9).marginals
    model = DenseModel.of(image, valid=valid, **widths)
    yield "DenseModel", model.mean_field(unary, init=proba).marginals
    yield "dense_energy", dense_energy(labels, unary, image, valid=valid, **widths)


@pytest.mark.parametrize("shape", [(18, 24), (4, 10, 16)])
def test_functions_ignore_invalid_pixels(rng, shape):
    image, unary, seeds, truth, valid = masked_problem(rng, shape)
    expected = dict(all_functions(image, unary, seeds, truth, valid))
    for color, cost, known in NONSENSE:
        image[~valid], unary[~valid], seeds[~valid] = color, cost, known
        for name, found in all_functions(image, unary, seeds, truth, valid):
            if np.ndim(found):
                np.testing.assert_array_equal(found[valid], expected[name][valid], err_msg=name)
            else:
                assert found == expected[name], name


@pytest.mark.parametrize("n_labels", [2, 3])
@pytest.mark.parametrize(
    "refiner",
    [
        DenseCRF(),
        GraphCut(),
        GridCRF(),
        LevelSet(),
        RandomWalker(),
        GraphCut(on="regions"),
        GridCRF(on="regions"),
    ],
    ids=lambda refiner: f"{type(refiner).__name__}{getattr(refiner, 'on', '')}",
)
def test_refiners_ignore_invalid_pixels(rng, refiner, n_labels):
    image, unary, seeds, _, valid = masked_problem(rng)
    unary = np.concatenate([unary, unary[..., :1] + 0.3], axis=-1)[..., :n_labels]
    regions = slic(image, 30, valid=valid)
    found = []
    for color, cost, known in NONSENSE:
        image[~valid], unary[~valid], seeds[~valid], regions[~valid] = color, cost, known, known
        scene = Scene(image, unary, seeds=seeds, valid=valid, regions=regions)
        found.append(refiner.predict([scene])[0])
        assert (found[-1][~valid] == -1).all()
        if hasattr(refiner, "predict_proba"):
            found.append(found.pop() + refiner.predict_proba([scene])[0][..., 1])
            found[-1][~valid] = 0
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


def forest():
    return RandomForestClassifier(n_estimators=5, random_state=0)


def pixels():
    return PixelClassifier(forest(), features=PixelFeatures(sigmas=(1.0, 3.0)), random_state=0)


SEGMENTERS = {
    "PixelClassifier": pixels,
    "SuperpixelClassifier": lambda: SuperpixelClassifier(forest(), superpixels=SLIC(25)),
    "CrossFit": lambda: CrossFit(pixels(), cv=2),
    "Blend": lambda: Blend(
        [("pixels", pixels()), ("regions", SuperpixelClassifier(forest(), superpixels=SLIC(25)))],
        cv=2,
        random_state=0,
    ),
    "StackedSegmenter": lambda: StackedSegmenter(
        [("pixels", pixels())],
        forest(),
        features=PixelFeatures(sigmas=(1.0,)),
        cv=2,
        random_state=0,
    ),
    "a pipeline": lambda: make_pipeline(pixels(), GridCRF(), LevelSet()),
    "GraphCut on regions": lambda: GraphCut(
        SuperpixelClassifier(forest(), superpixels=ETPS(25)), on="regions"
    ),
    "DeepSegmenter": lambda: deep(max_epochs=1, crop_size=16, crops_per_image=1, batch_size=2),
}


@pytest.mark.parametrize("name", SEGMENTERS)
@pytest.mark.parametrize("intensity_range", ["dtype", "image"])
def test_segmenters_neither_learn_nor_see_invalid_pixels(rng, name, intensity_range):
    found = []
    for color, _, known in NONSENSE[: 2 if name == "DeepSegmenter" else 3]:
        model = SEGMENTERS[name]()
        for part in ("intensity_range", "estimator__intensity_range", "segmenter__intensity_range"):
            if part in model.get_params() and model.get_params()[part] is not None:
                model.set_params(**{part: intensity_range})
        scenes, labels = [], []
        for seed in (0, 1):
            image, _, _, truth, valid = masked_problem(np.random.default_rng(seed))
            labels.append(np.where(valid, truth, known))
            image[~valid] = color
            scenes.append(Scene(image, valid=valid))
        found.append(model.fit(scenes, labels).predict(scenes))
    for other in found[1:]:
        for one, another in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(one, another)


def test_a_pretrained_network_does_not_see_invalid_pixels(rng):
    torch = pytest.importorskip("torch")
    pytest.importorskip("skorch")
    from hybridseg import PretrainedSegmenter

    torch.manual_seed(0)
    model = PretrainedSegmenter(torch.nn.Conv2d(2, 2, 5, padding=2), [0, 1], n_channels=2)
    image, _, _, _, valid = masked_problem(rng)
    found = []
    for color, _, _ in NONSENSE:
        image[~valid] = color
        found.append(model.predict_proba([Scene(image, valid=valid)])[0])
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


# --- filling ---


@pytest.mark.parametrize("spacing", [None, (1.0, 5.0), (5e-4, 1e-4)])
def test_filled_with_the_nearest_by_distance_in_space(rng, spacing):
    valid = rng.random((9, 11)) < 0.15
    rows, columns = nearest_valid(valid, spacing)
    steps = np.ones(2) if spacing is None else np.array(spacing)
    places = np.argwhere(valid) * steps
    for place in np.ndindex(valid.shape):
        distances = np.linalg.norm(places - place * steps, axis=1)
        found = np.linalg.norm((rows[place], columns[place]) * steps - place * steps)
        assert found == pytest.approx(distances.min())
        assert valid[rows[place], columns[place]]


@pytest.mark.parametrize("spacing", [None, (1.0, 5.0), (5.0, 1.0)])
def test_all_models_fill_holes_alike(rng, spacing):
    """Models that fill holes see a Scene with holes as the Scene with filled holes."""
    image, unary, _, truth, valid = masked_problem(rng)
    scene = Scene(image, unary, valid=valid, spacing=spacing)
    nearest = nearest_valid(valid, spacing)
    filled = Scene(image[nearest], unary[nearest], spacing=spacing)
    np.testing.assert_array_equal(scene.filled_colors, filled.colors)
    for model in (LevelSet(), pixels().fit([filled], [truth])):
        one, other = model.predict([scene])[0], model.predict([filled])[0]
        np.testing.assert_array_equal(one[valid], other[valid])


def test_nothing_to_fill_or_to_fill_with():
    assert nearest_valid(np.ones((3, 4), bool), None) is None
    assert nearest_valid(np.zeros((3, 4), bool), None) is None


# --- labels and scores ---


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8])
def test_unsigned_classes_leave_room_for_minus_one(rng, dtype):
    image, unary, _, _, valid = masked_problem(rng)
    classes = np.array([0, 120], dtype)
    scene = Scene(image, unary, classes=classes, valid=valid)
    regions = slic(image, 30, valid=valid)
    for refiner in (GraphCut(), GridCRF(), LevelSet(), DenseCRF(), GraphCut(on="regions")):
        found = refiner.predict([scene.replace(regions=regions)])[0]
        np.testing.assert_array_equal(found == -1, ~valid)
        assert set(np.unique(found)) == {-1, 0, 120}
    np.testing.assert_array_equal(scene.prediction == -1, ~valid)
    given = Scene(image, labels=np.full(valid.shape, 120, dtype), valid=valid)
    np.testing.assert_array_equal(given.prediction, np.where(valid, 120, -1))


def test_classes_beyond_the_signed_are_refused():
    with pytest.raises(ValueError, match="classes holds 18446744073709551615"):
        Scene(np.zeros((2, 3)), np.zeros((2, 3, 2)), classes=np.array([0, 2**64 - 1], np.uint64))


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.int16])
@pytest.mark.parametrize("junk", [0, 1, 200])
def test_scores_leave_out_invalid_pixels(rng, dtype, junk):
    image, unary, _, truth, valid = masked_problem(rng)
    other = truth[:, ::-1]
    scenes = [Scene(image, unary, valid=valid), Scene(image, unary)]
    labels = [np.where(valid, truth, junk).astype(dtype), other.astype(dtype)]
    for model in (GraphCut(), GridCRF(), LevelSet(), DenseCRF(), RandomWalker()):
        found = model.predict(scenes)
        void = [np.where(valid, truth, -1), other]
        assert model.score(scenes, labels) == mean_iou(void, found)
        assert model.score(scenes[:1], labels[:1]) == mean_iou(truth[valid], found[0][valid])
        weights = [2.0, 1.0]
        expected = model.score([scenes[0], *scenes], [labels[0], *labels])
        assert model.score(scenes, labels, sample_weight=weights) == pytest.approx(expected)


def test_a_mask_of_another_shape_than_the_labels_is_named(rng):
    image, unary, _, truth, valid = masked_problem(rng)
    with pytest.raises(ValueError, match=r"the valid mask of y\[0\] has shape"):
        GridCRF().score([Scene(image, unary, valid=valid)], [truth[:-1]])


# --- few valid pixels ---


@pytest.mark.parametrize("shape", [(7, 9), (3, 4, 5)])
def test_empty_masks(rng, shape):
    image, unary = rng.random((*shape, 1)), rng.normal(0, 1, (*shape, 2))
    image[:], unary[:] = np.nan, np.nan
    valid = np.zeros(shape, bool)
    for find in SUPERPIXELS.values():
        for intensity_range in ("dtype", "image"):
            found = find(image, valid=valid, intensity_range=intensity_range)
            assert (found == -1).all()
    scene = Scene(image, unary, valid=valid, regions=np.full(shape, -1))
    for refiner in (
        DenseCRF(),
        GraphCut(),
        GridCRF(),
        LevelSet(),
        GraphCut(on="regions"),
        GridCRF(on="regions"),
    ):
        assert (refiner.predict([scene])[0] == -1).all()
        assert np.isnan(refiner.score([scene], [np.ones(shape, int)]))
    with pytest.raises(ValueError, match="seeds holds no label >= 0 on a valid pixel"):
        random_walker(image, np.zeros(shape, int), valid=valid)


@pytest.mark.parametrize("shape", [(7, 9), (3, 4, 5)])
def test_masks_of_one_pixel(rng, shape):
    image, unary = rng.random((*shape, 3)), rng.normal(0, 1, (*shape, 2))
    valid = np.zeros(shape, bool)
    place = tuple(n // 2 for n in shape)
    valid[place] = True
    image[~valid], unary[~valid] = np.nan, np.nan
    for find in SUPERPIXELS.values():
        found = find(image, valid=valid)
        assert found[place] == 0
        assert (found[~valid] == -1).all()
    scene = Scene(image, unary, valid=valid, regions=np.where(valid, 0, -1))
    for refiner in (
        DenseCRF(),
        GraphCut(),
        GridCRF(),
        LevelSet(),
        GraphCut(on="regions"),
        GridCRF(on="regions"),
    ):
        found = refiner.predict([scene])[0]
        assert found[place] == unary[place].argmin()
        assert (found[~valid] == -1).all()
    seeds = np.where(valid, 4, -1)
    assert random_walker(image, seeds, valid=valid).labels[place] == 4


def test_segmenters_meet_empty_masks_and_single_pixels(rng):
    images, labels = halves()
    for name, make in SEGMENTERS.items():
        if name == "DeepSegmenter":
            continue
        model = make().fit(images, labels)
        for n_valid in (0, 1):
            valid = np.zeros(labels[0].shape, bool)
            valid.flat[:n_valid] = True
            image = np.where(valid[..., np.newaxis], images[0] / 255, np.nan)
            found = model.predict([Scene(image, valid=valid)])[0]
            np.testing.assert_array_equal(found == -1, ~valid)
