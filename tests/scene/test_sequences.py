"""X and y in the forms that users have."""

import numpy as np
import pytest

from hybridseg import DenseCRF, GraphCut, Scene
from hybridseg.features import slic
from hybridseg.scene.costs import RegionCosts
from hybridseg.scene.sequences import as_items, as_scenes, as_sources, read_truth
from tests.subjects import halves, pixels, superpixels


def write(images, folder):
    import imageio.v3 as iio

    paths = [str(folder / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        iio.imwrite(path, image)
    return paths


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_pandas_column_goes_by_position(tmp_path):
    pandas = pytest.importorskip("pandas")
    images, labels = halves()
    paths = write(images, tmp_path)
    model = pixels().fit(images, labels)
    column = pandas.Series(paths, index=[2, 0, 1])
    assert same(model.predict(column), model.predict(images))
    assert model.score(column, labels) == model.score(images, labels)
    frame = pandas.DataFrame({"path": paths})
    assert same(pixels().fit(frame["path"][1:], labels[1:]).classes_, model.classes_)
    with pytest.raises(TypeError, match=r"X is a data frame; pass its column of paths: X\['path"):
        model.predict(frame)


def test_array_of_paths(tmp_path):
    images, labels = halves()
    paths = np.array(write(images, tmp_path))
    model = pixels().fit(paths, labels)
    assert same(model.predict(paths), model.predict(images))


def test_bare_torch_image():
    torch = pytest.importorskip("torch")
    images, labels = halves(channels=1)
    model = pixels().fit(images, labels)
    with pytest.raises(ValueError, match="looks like one image"):
        model.predict(torch.from_numpy(np.repeat(images[0], 3, -1)))


def test_label_maps_in_color():
    images, labels = halves()
    palette = np.array([[0, 0, 0], [255, 0, 0], [0, 255, 0]], np.uint8)
    with pytest.raises(
        ValueError, match=r"y\[0\] has shape \(24, 32, 3\), which looks like an image"
    ):
        pixels().fit(images, [palette[lab] for lab in labels])
    with pytest.raises(ValueError, match=r"y\[0\] has shape \(24, 32, 1\).*drop the last axis"):
        pixels().fit([image[..., 0] for image in images], [lab[..., None] for lab in labels])


def test_masked_arrays_are_refused():
    images, labels = halves()
    mask = np.zeros(labels[0].shape, bool)
    mask[:3] = True
    masked = np.ma.masked_array(labels[0], mask)
    with pytest.raises(TypeError, match=r"y\[0\] is a masked array.*labels.filled\(-1\)"):
        pixels().fit(images, [masked, *labels[1:]])
    masked_image = np.ma.masked_array(images[0], np.repeat(mask[..., None], 3, -1))
    model = pixels().fit(images, labels)
    with pytest.raises(TypeError, match="masked array; expected a plain array: Scene"):
        model.predict([masked_image])


def test_scenes_tell_their_own_void_at_fit():
    images, labels = halves()
    marked = [np.where(lab == 2, 255, lab) for lab in labels]
    scenes = [Scene(image, ignore_label=255) for image in images]
    assert pixels().fit(scenes, marked).classes_.tolist() == [0, 1]


def test_valid_masks_at_fit():
    images, labels = halves()
    scenes = [Scene(im, valid=lab != 2) for im, lab in zip(images, labels, strict=True)]
    assert pixels().fit(scenes, labels).classes_.tolist() == [0, 1]
    wrong = [Scene(images[0], valid=np.ones((3, 3), bool)), *scenes[1:]]
    with pytest.raises(ValueError, match=r"the valid mask of X\[0\] has shape \(3, 3\)"):
        pixels().fit(wrong, labels)
    nothing = [Scene(im, valid=np.zeros(im.shape[:2], bool)) for im in images]
    with pytest.raises(ValueError, match="outside the Scenes' valid masks"):
        pixels().fit(nothing, labels)


def test_given_arrays_stay_writeable():
    images, labels = halves()
    regions = slic(images[0], 30)
    model = superpixels().fit([Scene(images[0], regions=regions)], labels[:1])
    found = GraphCut(model).fit(images, labels).predict(images)[0]
    found[0, 0] = 7
    model.predict([Scene(images[0], regions=regions)])[0][0, 0] = 7
    assert regions.flags.writeable
    assert images[0].flags.writeable


def test_results_go_with_their_scenes():
    """Once the Scenes of a prediction are deleted, the cache keeps none of their values."""
    from hybridseg.scene.deferred import _CACHE

    images, labels = halves()
    model = DenseCRF(pixels(), n_iter=1).fit(images, labels)
    before = len(_CACHE._held)
    scenes = model.transform(images)
    assert all(scene.unary is not None for scene in scenes)
    assert len(_CACHE._held) > before
    del scenes
    assert len(_CACHE._held) == before


def test_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    import os

    from hybridseg.scene import deferred

    images, labels = halves()
    paths = write(images[:1], tmp_path)
    model = GraphCut(DenseCRF(pixels(), n_iter=1)).fit(images, labels)
    reads, read = [], deferred.read_image
    monkeypatch.setattr(deferred, "read_image", lambda path: reads.append(path) or read(path))
    first = model.predict(paths)[0]
    assert len(reads) == 1
    write([images[0][::-1]], tmp_path)
    os.utime(paths[0], ns=(1, 1))
    assert not np.array_equal(model.predict(paths)[0], first)
    assert len(reads) == 2


def test_classes_are_checked():
    image, costs = np.zeros((4, 5)), np.zeros((4, 5, 2), np.float32)
    assert Scene(image, costs).classes.tolist() == [0, 1]
    assert Scene(image, costs, classes=[3, 1]).prediction.tolist() == [[3] * 5] * 4
    for bad in ([-1, 5], [1, 1], [1, 2, 3], [0.5, 1.0]):
        with pytest.raises(ValueError, match="expected 2 different label values"):
            Scene(image, costs, classes=bad)
    with pytest.raises(TypeError, match="classes has dtype <U1; expected different label values"):
        Scene(image, costs, classes=["a", "b"])


def test_region_costs_bring_their_regions():
    regions = np.array([[0, 0, 1]], np.int32)
    scene = Scene(np.zeros((1, 3)), RegionCosts(regions, np.eye(2, dtype=np.float32)))
    assert scene.regions is regions


def test_logits_of_many_kinds(tmp_path):
    image = np.zeros((4, 5, 3), np.uint8)
    path = write([image], tmp_path)[0]
    assert Scene.from_logits(path, np.zeros((4, 5, 2)), spatial_ndim=2).rank == 2
    with pytest.raises(ValueError, match=r"a batch of one: pass np.moveaxis\(logits\[0\], 0, -1\)"):
        Scene.from_logits(image, np.zeros((1, 2, 4, 5)))
    valid = np.ones((4, 5), bool)
    valid[0] = False
    logits = np.where(valid[..., None], [1.0, 2.0], np.nan)
    scene = Scene.from_logits(image, logits, valid=valid)
    assert np.array_equal(DenseCRF().predict([scene])[0], np.where(valid, 1, -1))
    proba = np.where(valid[..., None], [0.25, 0.75], np.nan)
    assert np.array_equal(
        Scene.from_proba(image, proba, valid=valid).prediction, np.where(valid, 1, -1)
    )


def test_logits_of_a_torch_tensor():
    torch = pytest.importorskip("torch")
    logits = torch.zeros((4, 5, 2), requires_grad=True)
    assert Scene.from_logits(np.zeros((4, 5)), logits).unary.shape == (4, 5, 2)


@pytest.mark.parametrize(("name", "what"), [("X", "images"), ("y", "label maps")])
@pytest.mark.parametrize(
    "wrong", [{1, 2}, iter([1]), {0: 1}, "a.png", b"a.png", list, 5], ids=lambda v: type(v).__name__
)
def test_a_sequence_has_a_length_and_items_by_position(wrong, name, what):
    with pytest.raises(TypeError, match=f"^{name} is a .*; expected a sequence of {what}"):
        as_items(wrong, name)


def test_a_single_scene_and_a_single_path_are_no_sequence():
    with pytest.raises(ValueError, match="X is one Scene; expected a sequence"):
        as_scenes(Scene(np.zeros((4, 5))))
    with pytest.raises(ValueError, match="X='a.png' is one path; expected a sequence"):
        as_scenes("a.png")
    with pytest.raises(ValueError, match="X is empty"):
        as_scenes([])


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        ((20, 30), {}),
        ((20, 30, 3), {}),
        ((20, 30, 4), {}),  # the most channels that an image file has
        ((20, 30, 5), {"n_channels": 5}),  # a model of five channels expects no gray images
        ((9, 20, 30), {"spatial_ndim": 3}),
        ((9, 20, 30, 2), {"spatial_ndim": 3}),
    ],
)
def test_an_array_that_may_be_one_image_is_refused(shape, known):
    with pytest.raises(ValueError, match="which looks like one image; wrap it in a list"):
        as_scenes(np.zeros(shape), **known)
    assert as_scenes([np.zeros(shape)], **known)[0].source("image").shape == shape


@pytest.mark.parametrize(
    ("shape", "known"),
    [
        ((20, 30, 5), {}),  # gray images of 30 x 5 pixels
        ((20, 30, 5), {"n_channels": 1}),
        ((7, 20, 30, 3), {}),
        ((7, 20, 30, 3), {"n_channels": 3}),
        ((7, 9, 20, 30), {"spatial_ndim": 3}),
    ],
)
def test_an_array_of_images_is_split_along_its_first_axis(shape, known):
    scenes = as_scenes(np.zeros(shape), **known)
    assert [scene.source("image").shape for scene in scenes] == [shape[1:]] * shape[0]


def test_y_has_one_label_map_for_each_image():
    assert as_sources(["a.png", "b.png"], 2) == ["a.png", "b.png"]  # no file is read
    with pytest.raises(TypeError, match="y is None; expected a sequence of label maps"):
        as_sources(None, 2)
    with pytest.raises(ValueError, match=r"X holds 2 images but y holds 1 .* one per image\.$"):
        as_sources(["a.png"], 2)
    with pytest.raises(ValueError, match=r"X holds 1 images but y .*\(wrap a single map in a list"):
        as_sources(["a.png", "b.png"], 1)


def test_a_label_map_is_returned_as_it_was_given_and_read_from_a_path(tmp_path):
    labels = np.arange(20, dtype=np.uint8).reshape(4, 5)
    scene = Scene(np.zeros((4, 5)))
    assert read_truth(scene, labels, (4, 5), "y[0]") is labels
    np.testing.assert_array_equal(read_truth(scene, labels.tolist(), (4, 5), "y[0]"), labels)
    np.testing.assert_array_equal(
        read_truth(scene, write([labels], tmp_path)[0], None, "y"), labels
    )
    with pytest.raises(TypeError, match=r"y\[0\] .*expected integers, one label per pixel"):
        read_truth(scene, [["a"]], (4, 5), "y[0]")


def test_the_truth_of_an_image_with_channels_first_is_explained():
    image, labels = np.zeros((3, 24, 32)), np.zeros((24, 32), int)
    with pytest.raises(
        ValueError, match=r"truth has shape \(24, 32\), but its .*np.moveaxis\(image"
    ):
        read_truth(Scene(image), labels, (3, 24), "truth")
    for other in (labels[:, :9], labels[0], image.astype(int)):  # of a shape that explains nothing
        assert read_truth(Scene(image), other, (3, 24), "truth") is other
    assert read_truth(Scene(image), labels, None, "truth") is labels  # every shape is expected


@pytest.mark.parametrize(("tag", "turned"), [(1, False), (3, False), (6, True), (8, True)])
def test_the_truth_of_an_image_that_is_turned_when_read_is_explained(tmp_path, tag, turned):
    from PIL import Image

    path = tmp_path / "turned.jpg"
    stored = Image.new("RGB", (32, 24))  # PIL has the width first
    exif = stored.getexif()
    exif[274] = tag
    stored.save(path, exif=exif)
    scene, labels = Scene(path), np.zeros((24, 32), int)
    read = scene.shape
    assert read == ((32, 24) if turned else (24, 32))
    upright = np.zeros(read, int)
    assert read_truth(scene, upright, read, "y[0]") is upright
    if turned:
        with pytest.raises(ValueError, match=rf"orientation tag {tag}, .*turned\(labels, {tag}\)"):
            read_truth(scene, labels, read, "y[0]")
    else:
        assert read_truth(scene, labels.T, read, "y[0]").shape == (32, 24)
    for other in (labels[:20], labels[:, :20]):  # not the stored pixels either
        assert read_truth(scene, other, read, "y[0]") is other
    array = Scene(np.zeros((32, 24, 3)))  # has no file, so no tag
    assert read_truth(array, labels, (32, 24), "y[0]") is labels
