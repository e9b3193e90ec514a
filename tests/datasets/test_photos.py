"""The bundled annotations agree with the photographs, with each other and with their format."""

import json
from importlib import resources

import numpy as np
import pytest

from hybridseg.datasets.photos import load_photos, render_polygons, render_scribbles

FILES = {
    file.name.removesuffix(".json"): file
    for file in (resources.files("hybridseg.datasets") / "photos").iterdir()
    if file.name.endswith(".json")
}
CLIPPED_MARGIN = 8  # pixels that a vertex may lie outside of the image


def read(name):
    return json.loads(FILES[name].read_text(encoding="utf-8"))


@pytest.fixture(scope="module", params=sorted(FILES))
def photo(request):
    """One photograph: the loaded record, flattened, and the annotation it came from."""
    loaded = load_photos([request.param])
    record = {key: loaded[key][0] for key in ("images", "truth", "scribbles", "names", "classes")}
    return record, read(request.param)


def test_size_and_types(photo):
    record, annotation = photo
    height, width = annotation["size"]
    assert record["images"].dtype == np.uint8
    assert record["images"].shape in {(height, width), (height, width, 3)}
    for labels in (record["truth"], record["scribbles"]):
        assert labels.dtype == np.int32
        assert labels.shape == (height, width)
        assert labels.min() >= -1
        assert labels.max() == len(record["classes"]) - 1


def test_every_class_has_truth_and_scribbles(photo):
    record, annotation = photo
    classes = record["classes"]
    assert classes == annotation["classes"]
    assert len(set(classes)) == len(classes)
    assert 2 <= len(classes) <= 5
    assert "void" not in classes
    everything = np.arange(len(classes))
    assert np.array_equal(np.setdiff1d(record["truth"], [-1]), everything)
    assert np.array_equal(np.setdiff1d(record["scribbles"], [-1]), everything)


def test_scribbles_agree_with_truth(photo):
    record, _ = photo
    drawn = record["scribbles"] >= 0
    assert np.array_equal(record["scribbles"][drawn], record["truth"][drawn])


def test_scribbles_and_void_are_sparse(photo):
    record, _ = photo
    assert 0.001 < np.mean(record["scribbles"] >= 0) <= 0.05
    assert np.mean(record["truth"] < 0) <= 0.05


def test_vertices_lie_on_the_image(photo):
    _, annotation = photo
    height, width = annotation["size"]
    shapes = annotation["polygons"] + annotation["scribbles"]
    vertices = np.concatenate([np.reshape(s["points"], (-1, 2)) for s in shapes if "points" in s])
    limit = np.array([width, height]) - 1 + CLIPPED_MARGIN
    assert np.all(vertices >= -CLIPPED_MARGIN)
    assert np.all(vertices <= limit)


def test_every_shape_paints_something(photo):
    _, annotation = photo
    for polygon in annotation["polygons"]:
        alone = render_polygons(
            {**annotation, "classes": ["", *annotation["classes"]], "polygons": [polygon]}
        )
        assert np.any(alone != 0), polygon
    for stroke in annotation["scribbles"]:
        assert np.any(render_scribbles({**annotation, "scribbles": [stroke]}) >= 0), stroke


def test_files_are_small():
    assert max(len(file.read_bytes()) for file in FILES.values()) < 30_000


def test_all_photographs_by_default_in_order():
    photos = load_photos()
    assert photos.names == sorted(FILES)
    assert len(photos.names) >= 8
    lists = (photos.images, photos.truth, photos.scribbles, photos.classes)
    assert {len(entries) for entries in lists} == {len(photos.names)}
    assert "scribbles" in photos.DESCR


def test_names_choose_and_order():
    assert load_photos(["chelsea", "astronaut"]).names == ["chelsea", "astronaut"]
    assert load_photos("chelsea").names == ["chelsea"]


def test_loading_twice_gives_equal_but_separate_arrays():
    first, second = load_photos("chelsea"), load_photos("chelsea")
    for key in ("images", "truth", "scribbles"):
        assert np.array_equal(first[key][0], second[key][0])
        assert not np.shares_memory(first[key][0], second[key][0])


def test_unknown_name_lists_what_exists():
    with pytest.raises(ValueError, match=r"called 'lena'; choose from \[.*'astronaut'"):
        load_photos(["astronaut", "lena"])


@pytest.mark.parametrize(
    ("render", "key"), [(render_polygons, "polygons"), (render_scribbles, "scribbles")]
)
def test_unknown_class_lists_what_exists(render, key):
    shape = {"class": "dog", "width": 3, "points": [[0, 0], [2, 0], [2, 2]]}
    with pytest.raises(ValueError, match=r"class 'dog', but its classes are \['cat'\]"):
        render({"size": [4, 5], "classes": ["cat"], key: [shape]})


def annotation_of(*shapes, size=(9, 14), key="polygons"):
    return {"size": size, "classes": ["far", "near", "nearer"], key: list(shapes)}


def test_later_polygons_cover_earlier_ones_and_void_is_minus_one():
    square = [[1, 1], [6, 1], [6, 6], [1, 6]]
    hole = [[3, 3], [4, 3], [4, 4], [3, 4]]
    annotation = annotation_of(
        {"class": "near", "points": square}, {"class": "void", "points": hole}
    )
    expected = np.zeros((9, 14), dtype=np.int32)
    expected[1:7, 1:7] = 1
    expected[3:5, 3:5] = -1
    assert np.array_equal(render_polygons(annotation), expected)


def test_ellipse_covers_the_pixels_of_its_equation():
    x, y, a, b, degrees = 6.3, 4.1, 5.2, 2.4, 25.0
    rendered = render_polygons(annotation_of({"class": "near", "ellipse": [x, y, a, b, degrees]}))
    rows, columns = np.mgrid[:9, :14]
    turn = np.deg2rad(degrees)
    along = (columns - x) * np.cos(turn) + (rows - y) * np.sin(turn)
    across = (rows - y) * np.cos(turn) - (columns - x) * np.sin(turn)
    inside = (along / a) ** 2 + (across / b) ** 2 < 1
    assert np.array_equal(rendered == 1, inside)


def test_stroke_covers_the_pixels_near_its_line():
    start, end, width = np.array([2.2, 2.1]), np.array([10.6, 6.3]), 3.0
    stroke = {"class": "nearer", "width": width, "points": [start.tolist(), end.tolist()]}
    rendered = render_scribbles(annotation_of(stroke, key="scribbles"))
    rows, columns = np.mgrid[:9, :14]
    pixels = np.stack([columns, rows], axis=-1)
    direction = end - start
    along = np.clip((pixels - start) @ direction / (direction @ direction), 0, 1)
    distance = np.linalg.norm(pixels - start - along[..., None] * direction, axis=-1)
    assert np.array_equal(rendered == 2, distance < width / 2)
    assert np.array_equal(rendered == -1, distance >= width / 2)


def test_shapes_outside_of_the_image_are_clipped():
    beyond = [[-5, -5], [30, -5], [30, 30], [-5, 30]]
    assert np.all(render_polygons(annotation_of({"class": "near", "points": beyond})) == 1)
    stroke = {"class": "near", "width": 3, "points": [[-20, 4], [40, 4], [40, 4]]}
    rendered = render_scribbles(annotation_of(stroke, key="scribbles"))
    assert np.all(rendered[3:6] == 1)
    assert np.all(rendered[[2, 6]] == -1)


def test_rendering_leaves_the_annotation_alone():
    annotation = read("astronaut")
    copy = json.loads(json.dumps(annotation))
    render_polygons(annotation)
    render_scribbles(annotation)
    assert annotation == copy
