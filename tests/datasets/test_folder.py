from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from sklearn.model_selection import KFold, train_test_split

from hybridseg.datasets import LabelFile, load_folder, read_image, read_labels, write_labels

CLASSES = {
    "classes": ["sky", "road"],
    "palette": [[0, 0, 255], [9, 9, 9]],
    "ignore_index": 255,
}


@pytest.fixture
def folder(tmp_path, rng):
    """Four images of differing formats; three have label maps; two splits."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    for index, name in enumerate(["a.png", "b.webp", "c.jpg", "d.x.png"]):
        image = rng.integers(0, 256, (6 + index, 9, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "images" / name)
    for index, name in enumerate(["a", "b", "c"]):
        labels = rng.integers(-1, 2, (6 + index, 9))
        write_labels(tmp_path / "labels" / f"{name}.png", labels)
    (tmp_path / "images" / ".hidden.png").write_bytes(b"")
    (tmp_path / "images" / "notes.md").write_text("no image")
    (tmp_path / "classes.json").write_text(json.dumps(CLASSES))
    (tmp_path / "train.txt").write_text("b\n\n  a \n")
    (tmp_path / "test.txt").write_text("c\n")
    return tmp_path


def test_reads_what_the_folder_says(folder):
    data = load_folder(folder)
    assert data.names == ["a", "b", "c"]
    assert data.unlabeled == data.unlabelled == ["d.x"]
    assert data.classes == ["sky", "road"]
    assert_array_equal(data.palette, CLASSES["palette"])
    assert data.palette.dtype == np.uint8
    assert (data.ignore_label, data.splits) == (255, ["test", "train"])
    assert [read_image(path).shape for path in data.X] == [(6, 9, 3), (7, 9, 3), (8, 9, 3)]
    for name, labels in zip(data.names, data.y, strict=True):
        stored = np.asarray(Image.open(folder / "labels" / f"{name}.png")).astype(int)
        assert_array_equal(labels, np.where(stored == 255, -1, stored))
        assert set(np.unique(labels)) == {-1, 0, 1}
        assert labels.shape == stored.shape


def test_split_keeps_its_order_and_may_be_given_a_text_path(folder):
    data = load_folder(str(folder), "train")
    assert data.names == ["b", "a"]
    assert [type(path) for path in data.X] == [str, str]
    assert data.X[0].endswith("b.webp")
    assert type(data.X) is type(data.y) is list


def test_nothing_is_read_before_it_is_used(folder):
    data = load_folder(folder)
    for path in [*(folder / "images").iterdir(), *(folder / "labels").iterdir()]:
        path.write_bytes(b"broken")
    train = train_test_split(data.X, data.y, test_size=1, random_state=0)
    assert [len(part) for part in train] == [2, 1, 2, 1]
    assert all(isinstance(labels, LabelFile) for labels in train[2])
    assert len(list(KFold(3).split(data.X, data.y))) == 3
    again = pickle.loads(pickle.dumps(data.y))
    assert again == data.y
    with pytest.raises(ValueError, match="cannot be read as an image"):
        np.asarray(data.y[0])


def test_label_file_follows_the_array_protocol(folder):
    labels = load_folder(folder).y[0]
    expected = read_labels(labels.path, 255)
    assert np.asarray(labels).dtype == np.int32
    assert np.asarray(labels, dtype=np.int64).dtype == np.int64
    assert_array_equal(np.array(labels, copy=True), expected)
    first = np.asarray(labels)
    first[:] = 9
    assert_array_equal(np.asarray(labels), expected)
    with pytest.raises(ValueError, match="without making a new array"):
        labels.__array__(copy=False)


def test_ignore_label_may_be_given(folder):
    data = load_folder(folder, ignore_label=1)
    assert data.ignore_label == 1
    assert set(np.unique(data.y[0])) == {-1, 0, 255}


def test_without_class_list_and_labels(folder):
    (folder / "classes.json").unlink()
    data = load_folder(folder)
    assert (data.classes, data.palette, data.ignore_label) == (None, None, None)
    assert set(np.unique(data.y[0])) == {0, 1, 255}
    for path in (folder / "labels").iterdir():
        path.unlink()
    (folder / "labels").rmdir()
    data = load_folder(folder)
    assert data.y is None
    assert data.names == ["a", "b", "c", "d.x"]
    assert data.unlabeled == []


def test_null_entries_of_the_class_list(folder):
    (folder / "classes.json").write_text('{"classes": null, "palette": null, "ignore_index": null}')
    data = load_folder(folder)
    assert (data.classes, data.palette, data.ignore_label) == (None, None, None)


def test_missing_things_are_named(folder):
    with pytest.raises(FileNotFoundError, match=r"nowhere.images is not a folder; expected"):
        load_folder(folder / "nowhere")
    with pytest.raises(ValueError, match=r"no val\.txt; expected one of 'test', 'train'"):
        load_folder(folder, "val")
    (folder / "test.txt").write_text("d.x\n")
    with pytest.raises(FileNotFoundError, match=r"test\.txt lists the ID 'd\.x'.*labels.d\.x\.\*"):
        load_folder(folder, "test")
    (folder / "test.txt").write_text("e\n")
    with pytest.raises(FileNotFoundError, match=r"no .*images.e\.\* and no .*labels.e\.\*"):
        load_folder(folder, "test")
    (folder / "test.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"test\.txt is empty"):
        load_folder(folder, "test")


def test_two_images_of_one_name(folder):
    (folder / "images" / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.jpg and a\.png, two files of the ID 'a'"):
        load_folder(folder)


def test_no_images_or_no_common_names(folder):
    for path in (folder / "labels").iterdir():
        path.rename(path.with_name("z" + path.name))
    with pytest.raises(FileNotFoundError, match="no file in images/ has a label map of its name"):
        load_folder(folder)
    for path in (folder / "images").glob("*.*"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match="no image of a known format"):
        load_folder(folder)


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("{", "is not a JSON object"),
        ("[1]", "is not a JSON object"),
        ('{"classes": "sky"}', "expected a list of names"),
        ('{"classes": [1, 2]}', "expected a list of names"),
        ('{"ignore_index": "255"}', "expected an integer or null"),
        ('{"classes": ["sky"], "palette": [[0, 0, 0], [1, 1, 1]]}', "for every class"),
        ('{"palette": [[0, 0, 256]]}', "each 0..255"),
        ('{"palette": [[0, 0], [1]]}', "'palette' must hold one"),
    ],
)
def test_unusable_class_list(folder, content, match):
    (folder / "classes.json").write_text(content)
    with pytest.raises(ValueError, match=match):
        load_folder(folder)


def real_sets(data_dir):
    return sorted(path for path in data_dir.iterdir() if (path / "images").is_dir())


def test_every_real_set_reads_the_first_item_of_each_split(data_dir):
    checked = 0
    for root in real_sets(data_dir):
        if root.name == "stereo":  # its list names pairs of images, not files
            with pytest.raises(FileNotFoundError, match="test.txt lists the ID 'cones'"):
                load_folder(root, "test")
            continue
        for split in load_folder(root).splits:
            data = load_folder(root, split)
            image, labels = read_image(data.X[0]), np.asarray(data.y[0])
            assert image.shape[: labels.ndim] == labels.shape
            n_classes = len(data.classes) if data.classes else 256
            assert labels.min() >= -1
            assert 0 <= labels.max() < n_classes
            checked += 1
    assert checked > 0


def test_every_real_set_loads_whole(data_dir):
    for root in real_sets(data_dir):
        data = load_folder(root)
        assert len(data.X) == len(data.names) > 0
        image = read_image(data.X[-1])
        assert image.dtype.kind in "buif"
        if (root / "labels").is_dir():
            assert image.shape[: np.asarray(data.y[-1]).ndim] == data.y[-1].shape
        else:
            assert data.y is None
