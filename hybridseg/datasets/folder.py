"""Data sets in folders: images, label maps, class names and lists of splits."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils import Bunch

from hybridseg.files.images import image_id, read_labels


@dataclass(frozen=True)
class LabelFile:
    """A label map that stays in its file until ``np.asarray(label_file)`` reads it.

    A list of these can be the ``y`` of a data set that is larger than memory. Slicing and pickling
    (cross-validation, parallel workers) copy the paths only. Each read returns a new array.

    Parameters
    ----------
    path : str
        The file, in a format that :func:`hybridseg.datasets.read_labels` reads.
    ignore_label : int, optional
        The stored value that marks void pixels; it becomes -1.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from hybridseg.datasets import LabelFile, write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_labels(folder + "/a.png", np.array([[0, 2, -1]]))
    ...     np.asarray(LabelFile(folder + "/a.png", ignore_label=255))
    array([[ 0,  2, -1]], dtype=int32)
    """

    path: str
    ignore_label: int | None = None

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the map, as int32 by default."""
        if copy is False:
            raise ValueError(f"copy=False: {self.path} cannot be read without making a new array.")
        labels = read_labels(self.path, self.ignore_label)
        return labels if dtype is None else labels.astype(dtype, copy=False)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the map (reads the file)."""
        return self.__array__().shape


def load_folder(
    directory: str | os.PathLike[str],
    split: str | None = None,
    *,
    ignore_label: int | None = None,
) -> Bunch:
    """List a data set in a folder; images and label maps are read when they are used.

    The folder's layout::

        images/ID.*                        images or volumes
        labels/ID.*                        their label maps: one channel, the label value
        classes.json                       optional: {"classes": [...], "palette": [[r, g, b], ...],
                                           "ignore_index": 255}
        train.txt, val.txt, test.txt, ...  optional: one ID per line

    Parameters
    ----------
    directory : str or path-like
        The folder.
    split : str, optional
        The name of a list, such as ``"train"`` for ``train.txt``; its order is kept. None: all
        images that have a label map (all images if there is no folder ``labels``), sorted by ID.
    ignore_label : int, optional
        The stored value that marks void pixels. Default: ``ignore_index`` of ``classes.json``.

    Returns
    -------
    Bunch
        ``X`` : list of str, the paths of the images.
        ``y`` : list of :class:`LabelFile`; ``np.asarray`` of one reads an int32 map, void as -1.
        None if there is no folder ``labels``.
        ``names`` : list of str, the IDs.
        ``classes`` : list of str, the names of the labels 0, 1, ...; None if ``classes.json`` is
        missing or names no classes (the maps may then hold any label values).
        ``palette`` : uint8 array (L, 3), the colors of the classes, or None.
        ``ignore_label`` : int or None, the void value in the files.
        ``splits`` : list of str, the names of the lists in the folder.
        ``unlabeled`` : list of str, the IDs of images without a label map, which ``split=None``
        leaves out; ``unlabelled`` is the same list.

    Raises
    ------
    FileNotFoundError
        The folder or its folder ``images`` does not exist or holds no images, no image has a label
        map, or an ID of the list has no files.
    ValueError
        The split is unknown, its list is empty, two files have the same ID, or ``classes.json``
        cannot be used.

    See Also
    --------
    hybridseg.datasets.make_scenes : Synthetic images with exact labels.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from pathlib import Path
    >>> from hybridseg.datasets import load_folder, write_labels
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for part in ("images", "labels"):
    ...         Path(folder, part).mkdir()
    ...     np.save(Path(folder, "images", "a.npy"), np.zeros((2, 3)))
    ...     write_labels(Path(folder, "labels", "a.png"), np.array([[0, 1, 255], [0, 1, 1]]))
    ...     data = load_folder(folder, ignore_label=255)
    ...     data.names, np.asarray(data.y[0]).tolist()
    (['a'], [[0, 1, -1], [0, 1, 1]])
    """
    root = Path(directory)
    images = _files(root / "images")
    labels = _files(root / "labels") if (root / "labels").is_dir() else None
    about = _read_classes(root / "classes.json")
    void = about["ignore_index"] if ignore_label is None else ignore_label
    unlabeled = sorted(name for name in images if labels is not None and name not in labels)
    names = sorted(set(images) - set(unlabeled)) if split is None else _read_split(root, split)
    if not names:
        raise FileNotFoundError(
            f"{root}: no file in images/ has a label map of its name in labels/."
        )
    for name in names:
        _check_files(name, images, labels, root, split)
    return Bunch(
        X=[str(images[name]) for name in names],
        y=None if labels is None else [LabelFile(str(labels[name]), void) for name in names],
        names=names,
        classes=about["classes"],
        palette=about["palette"],
        ignore_label=void,
        splits=_splits(root),
        unlabeled=unlabeled,
        unlabelled=unlabeled,
    )


def _files(folder: Path) -> dict[str, Path]:
    """Return {ID: path} of the images in a folder."""
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{folder} is not a folder; expected a data set with images/ID.* and labels/ID.*."
        )
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        name = image_id(path.name)
        if name is None:
            continue
        if name in found:
            raise ValueError(
                f"{folder} holds {found[name].name} and {path.name}, two files of the ID {name!r}; "
                f"expected one: remove or rename the other."
            )
        found[name] = path
    if not found:
        raise FileNotFoundError(f"{folder} holds no image of a known format.")
    return found


def _splits(root: Path) -> list[str]:
    return sorted(path.stem for path in root.glob("*.txt"))


def _read_split(root: Path, split: str) -> list[str]:
    if split not in _splits(root):
        there = ", ".join(repr(name) for name in _splits(root)) or "none"
        raise ValueError(f"split={split!r}: {root} has no {split}.txt; expected one of {there}.")
    lines = (root / f"{split}.txt").read_text(encoding="utf-8").splitlines()
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        raise ValueError(f"split={split!r}: {split}.txt is empty; expected one ID per line.")
    return names


def _check_files(
    name: str,
    images: dict[str, Path],
    labels: dict[str, Path] | None,
    root: Path,
    split: str | None,
) -> None:
    missing = [
        str(root / part / f"{name}.*")
        for part, files in (("images", images), ("labels", labels))
        if files is not None and name not in files
    ]
    if missing:
        raise FileNotFoundError(
            f"{split}.txt lists the ID {name!r}, but there is no {' and no '.join(missing)}; "
            f"expected one file of that ID in images/ and one in labels/."
        )


def _read_classes(path: Path) -> dict[str, Any]:
    """Read the class names, colors and void value; a missing one is None."""
    about: dict[str, Any] = {"classes": None, "palette": None, "ignore_index": None}
    if not path.is_file():
        return about
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        about |= {key: stored[key] for key in about if stored.get(key) is not None}
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not a JSON object with 'classes': {error}") from error
    return _checked_classes(about, path)


def _checked_classes(about: dict[str, Any], path: Path) -> dict[str, Any]:
    classes, palette, void = about["classes"], about["palette"], about["ignore_index"]
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    ):
        raise ValueError(f"{path}: 'classes' is {classes!r}; expected a list of names.")
    if void is not None and (not isinstance(void, int) or isinstance(void, bool)):
        raise ValueError(f"{path}: 'ignore_index' is {void!r}; expected an integer or null.")
    if palette is not None:
        about["palette"] = _checked_palette(palette, classes, path)
    return about


def _checked_palette(palette: Any, classes: list[str] | None, path: Path) -> NDArray[np.uint8]:
    try:
        colors = np.array(palette, dtype=np.int64)
        expected = (len(colors) if classes is None else len(classes), 3)
        if colors.shape != expected or colors.min() < 0 or colors.max() > 255:
            raise ValueError(f"it has shape {colors.shape}; expected {expected} of 0..255")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: 'palette' must hold one [red, green, blue], each 0..255, for every class "
            f"({error})."
        ) from error
    return colors.astype(np.uint8)
