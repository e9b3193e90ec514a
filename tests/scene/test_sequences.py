"""X and y in the forms that people have them in."""

import numpy as np
import pytest

from hybridseg import DenseCRF, GraphCut, Scene
from hybridseg.features import slic
from hybridseg.scene.costs import RegionCosts
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


def test_bare_torch_picture():
    torch = pytest.importorskip("torch")
    images, labels = halves(channels=1)
    model = pixels().fit(images, labels)
    with pytest.raises(ValueError, match="looks like one image"):
        model.predict(torch.from_numpy(np.repeat(images[0], 3, -1)))


def test_label_pictures_in_color():
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
    picture = np.ma.masked_array(images[0], np.repeat(mask[..., None], 3, -1))
    model = pixels().fit(images, labels)
    with pytest.raises(TypeError, match="masked array; expected a plain array: Scene"):
        model.predict([picture])


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
    """Nothing that a prediction needed is kept when its Scenes are gone."""
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
