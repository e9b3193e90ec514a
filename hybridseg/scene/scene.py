"""The value that travels through a pipeline: an image and what is known about it so far."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.files.atomic import atomic_write
from hybridseg.files.images import stated_facts
from hybridseg.scene.costs import (
    RegionCosts,
    costs_from_logits,
    costs_from_proba,
    ends_in,
    proba_from_costs,
)
from hybridseg.scene.deferred import Deferred, resolve
from hybridseg.space import nearest_valid
from hybridseg.validation import (
    IntensityRange,
    as_colors,
    as_costs,
    as_image,
    as_label_map,
    as_mask,
    as_numbers,
    check_proba,
    only_valid,
    warn_caller,
)


class Source:
    """A field of a Scene that holds an array, a path or a deferred value, and returns an array."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.slot = "_" + name

    def __get__(self, scene: Scene | None, owner: type | None = None) -> Any:
        if scene is None:  # the dataclass decorator asks for the default
            return None
        value = resolve(scene.__dict__[self.slot])
        return value.pixels() if isinstance(value, RegionCosts) else value

    def __set__(self, scene: Scene, value: Any) -> None:
        scene.__dict__[self.slot] = value


class Stated:
    """A field of a Scene whose default is the metadata of the image's file.

    ``spacing`` is the spacing of the file if the Scene has none and both have the same number of
    axes. ``meta`` contains the file's ``affine`` and the entries that were passed to the Scene. The
    metadata is read on access, without decoding pixels.
    """

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, scene: Scene | None, owner: type | None = None) -> Any:
        if scene is None:  # the dataclass decorator asks for the default
            return None
        given = scene.__dict__["_" + self.name]
        if self.name == "spacing":
            return given if given is not None else _spacing_in_file(scene)
        affine = stated_facts(scene.source("image")).affine
        return {**({} if affine is None else {"affine": affine}), **(given or {})}

    def __set__(self, scene: Scene, value: Any) -> None:
        scene.__dict__["_" + self.name] = value


def _spacing_in_file(scene: Scene) -> tuple[float, ...] | None:
    facts = stated_facts(scene.source("image"))
    fits = facts.spatial_ndim == (scene.spatial_ndim or facts.spatial_ndim)
    return facts.spacing if fits else None


@dataclass(frozen=True, eq=False, repr=False)
class Scene:
    """An image and what is known about it so far: the value that travels through a pipeline.

    A Pipeline passes only the output of one step to the next step, and a CRF needs both the image
    and the costs. So segmenters turn images into Scenes, and refiners turn Scenes into Scenes.
    Users who have the output of a network make a Scene with :meth:`from_logits` or
    :meth:`from_proba`. Other users rarely need one.

    A list of Scenes needs little memory: ``image`` may be a path, and ``image``, ``unary``,
    ``labels`` and ``regions`` may be deferred values, which are computed when the attribute is
    read. A cache of 256 MB in each process holds recent results, which are read-only.

    Parameters
    ----------
    image : ndarray (*spatial[, C]), or a path to an image
        Any real dtype; it is stored unchanged.
    unary : ndarray of float32, (*spatial, L), or RegionCosts, optional
        The cost of each label at each pixel, lower is better.
    labels : ndarray of int, (*spatial,), optional
        A hard segmentation, in the values of ``classes``; negative where there is no label.
    classes : ndarray of int, (L,), optional
        The label value of each entry of the last axis of ``unary``; converted to int64.
    regions : ndarray of int32, (*spatial,), optional
        The superpixel of each pixel, 0..R-1. Default: those of ``unary`` if it is RegionCosts.
    seeds : ndarray of int, (*spatial,), optional
        Labels known for certain, in the values of ``classes``; negative where unknown.
    valid : ndarray of bool, (*spatial,), optional
        False where there is no data. Such pixels may be NaN; they get the label -1 and do not
        influence other pixels.
    spacing : sequence of float, optional
        The distance between neighboring pixels along each axis. Default: that of the file, in the
        file's unit, if ``image`` is the path of a NIfTI file or of a TIFF volume of OME or
        ImageJ; else 1.
    spatial_ndim : {2, 3}, optional
        The number of spatial axes, if neither the image nor its file determines it.
    intensity_range : {"dtype", "image"} or (low, high), optional
        The range of values that is mapped to colors 0..255; see
        :func:`hybridseg.validation.as_colors`. None means "dtype".
    ignore_label : int, optional
        A label value that scores ignore in addition to negative values.
    meta : mapping
        Any other information. If ``image`` is the path of a NIfTI file, ``"affine"`` is by default
        the file's matrix (4, 4), from voxel indices (x, y, z) to positions.

    Raises
    ------
    ValueError
        ``image`` is None. Other values are checked when they are used.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import DenseCRF, Scene
    >>> image = np.zeros((4, 6, 3), np.uint8)
    >>> image[:, 3:] = 255
    >>> logits = np.stack([np.eye(4, 6), np.eye(4, 6)[:, ::-1]], axis=-1)
    >>> DenseCRF().predict([Scene.from_logits(image, logits)])[0].shape
    (4, 6)
    """

    image: Any = Source()
    unary: Any = Source()
    labels: Any = Source()
    classes: NDArray[Any] | None = None
    regions: Any = Source()
    seeds: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    spacing: Sequence[float] | float | None = Stated()  # type: ignore[assignment]
    spatial_ndim: int | None = None
    intensity_range: IntensityRange | None = None
    ignore_label: int | None = None
    meta: Mapping[str, Any] = Stated()  # type: ignore[assignment]

    def __post_init__(self) -> None:
        if self.source("image") is None:
            raise ValueError("image is None; a Scene starts from an image or a path to one.")
        unary = self.source("unary")
        by_region = isinstance(unary, RegionCosts)
        if by_region and self.source("regions") is None:
            object.__setattr__(self, "regions", unary.regions)
        known = unary.costs if by_region else unary
        n_labels = known.shape[-1] if isinstance(known, np.ndarray) else None
        object.__setattr__(self, "classes", _as_classes(self.classes, n_labels))

    @classmethod
    def from_logits(cls, image: Any, logits: ArrayLike, classes: Any = None, **known: Any) -> Scene:
        """Make a Scene from an image and the raw outputs of a network.

        Parameters
        ----------
        image : ndarray (*spatial[, C]), or a path
            The input of the network, at the size of its output.
        logits : array-like of float, (*spatial, L)
            Raw scores, higher is better. For the layout of torch, (L, H, W), pass
            ``np.moveaxis(x, 0, -1)``.
        classes : array-like of int, (L,), optional
            The label value of each channel. Default: 0..L-1.
        **known
            Other fields of the Scene, such as ``spacing``.

        Returns
        -------
        Scene
            With ``unary = -log_softmax(logits)``.

        Raises
        ------
        TypeError
            The logits are not real numbers.
        ValueError
            The shapes do not fit, or values are not finite.

        Warns
        -----
        UserWarning
            The logits seem to be probabilities, which the softmax would flatten.
        """
        scores = _checked(image, logits, "logits", known)
        _warn_of_proba(scores if known.get("valid") is None else scores[known["valid"]])
        return cls(image, costs_from_logits(scores), classes=classes, **known)

    @classmethod
    def from_proba(cls, image: Any, proba: ArrayLike, classes: Any = None, **known: Any) -> Scene:
        """Make a Scene from an image and probabilities ``(*spatial, L)`` that sum to one.

        Probabilities below 1e-4 are set to 1e-4 before the logarithm. Parameters and errors are
        those of :meth:`from_logits`. A negative probability, or a pixel whose probabilities do not
        sum to one within 2%, raises a ValueError.
        """
        checked = _checked(image, proba, "proba", known)
        if known.get("valid") is not None:
            checked[~known["valid"]] = 1 / checked.shape[-1]
        check_proba(checked, "proba", advice=": pass raw network outputs to Scene.from_logits")
        return cls(image, costs_from_proba(checked), classes=classes, **known)

    def source(self, name: str) -> Any:
        """Return a field as it is stored: an array, a path, a deferred value or RegionCosts."""
        return self.__dict__["_" + name if name in _SOURCES else name]

    def replace(self, **changes: Any) -> Scene:
        """Copy the Scene with some fields changed; decode no image, compute no deferred value.

        If an array replaces the path of an image, the Scene keeps the metadata of the file (spacing
        and affine).

        Raises
        ------
        TypeError
            A name is not that of a field.
        """
        given = {f.name: self.source(f.name) for f in fields(self)}
        if isinstance(changes.get("image"), np.ndarray):
            given |= self._stated(changes["image"].ndim)
        if unknown := set(changes) - set(given):
            raise TypeError(
                f"{sorted(unknown)} are not fields of a Scene; expected some of {sorted(given)}."
            )
        return Scene(**(given | changes))

    def _stated(self, ndim: int) -> dict[str, Any]:
        """Return the metadata of the image's file, if it fits an array of ``ndim`` axes."""
        rank = stated_facts(self.source("image")).spatial_ndim
        if rank is None or ndim not in (rank, rank + 1):
            return {}
        known = {"spacing": self.spacing, "meta": self.meta}
        return known if self.spatial_ndim is not None else {**known, "spatial_ndim": rank}

    __replace__ = replace  # called by copy.replace of Python 3.13 and later

    @property
    def rank(self) -> int:
        """The number of spatial axes, from ``spatial_ndim``, the costs, the file or the image."""
        if self.spatial_ndim is not None:
            return self.spatial_ndim
        unary = self.source("unary")
        if isinstance(unary, np.ndarray):
            return unary.ndim - 1
        return stated_facts(self.source("image")).spatial_ndim or as_image(self.image).ndim - 1

    @property
    def shape(self) -> tuple[int, ...]:
        """The image's spatial shape; reads the image."""
        return as_image(self.image, spatial_ndim=self.rank).shape[:-1]

    @property
    def colors(self) -> NDArray[np.float32]:
        """The image as float32 ``(*spatial, C)`` on the scale 0..255, zero where not valid."""
        return as_colors(
            self.image,
            spatial_ndim=self.rank,
            intensity_range="dtype" if self.intensity_range is None else self.intensity_range,
            valid=self.valid,
        )

    @property
    def filled_colors(self) -> NDArray[np.float32]:
        """The same as ``colors``, but invalid pixels have the color of the nearest valid pixel.

        Distances respect ``spacing``. Filters and networks then see no edge at the border of the
        missing data, and no color that the image does not have.
        """
        colors = self.colors
        if self.valid is None:
            return colors
        nearest = nearest_valid(as_mask(self.valid, colors.shape[:-1]), self.spacing)
        return colors if nearest is None else colors[nearest]

    @property
    def has_costs(self) -> bool:
        """Whether the Scene has costs (does not compute them)."""
        return self.source("unary") is not None

    @property
    def has_labels(self) -> bool:
        """Whether the Scene has a hard segmentation (does not compute it)."""
        return self.source("labels") is not None

    @property
    def region_costs(self) -> RegionCosts | None:
        """The costs of the regions; None if costs were made for pixels, or if there are none."""
        value = resolve(self.source("unary"))
        return value if isinstance(value, RegionCosts) else None

    @property
    def proba(self) -> NDArray[np.float32]:
        """The costs as probabilities ``(*spatial, L)``: the softmax of the negated costs.

        Raises
        ------
        ValueError
            The Scene has no costs.
        """
        if not self.has_costs:
            raise ValueError("this Scene has no costs, so it has no probabilities: pass unary=.")
        costs = self.unary
        if self.valid is None:
            return proba_from_costs(costs)
        return proba_from_costs(only_valid(costs, as_mask(self.valid, costs.shape[:-1])))

    @property
    def prediction(self) -> NDArray[Any]:
        """The segmentation in the values of ``classes``: ``labels``, else labels of least cost.

        Raises
        ------
        ValueError
            The Scene has neither labels nor costs with classes.
        """
        if self.has_labels:
            found = np.asarray(self.labels)
        elif self.has_costs and self.classes is not None:
            best = resolve(self.source("unary"))
            by_region = isinstance(best, RegionCosts)
            found = self.classes[(best.costs if by_region else best).argmin(axis=-1)]
            found = found[best.regions] if by_region else found
        else:
            raise ValueError(
                "this Scene has neither labels nor costs with classes, so it has no prediction."
            )
        if self.valid is None:
            return found
        valid = as_mask(self.valid, found.shape)
        return np.where(valid, as_label_map(found), np.int64(-1))

    def store_costs(self, path: str | os.PathLike[str]) -> Scene:
        """Compute the costs, write them to an ``.npy`` file, and return a Scene that refers to it.

        Parameters
        ----------
        path : path ending in ".npy"
            The file is written atomically.

        Returns
        -------
        Scene
            Its ``unary`` is memory-mapped from the file on each access.

        Raises
        ------
        ValueError
            The ending of ``path`` is not ".npy".
        """
        target = Path(path)
        if target.suffix != ".npy":
            raise ValueError(f"path={str(path)!r}; expected the name of an .npy file.")
        costs = self.unary
        with atomic_write(target) as file:
            np.save(file, costs)
        return self.replace(unary=str(target))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{f.name}={_summary(self.source(f.name))}"
            for f in fields(self)
            if f.name != "meta" and self.source(f.name) is not None
        )
        return f"Scene({shown})"


#: Fields with a descriptor (Source or Stated); their values are stored with an underscore.
_SOURCES = ("image", "unary", "labels", "regions", "spacing", "meta")


def _summary(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, RegionCosts):
        return f"<{len(value.costs)} regions>"
    return "<computed when read>" if isinstance(value, Deferred) else repr(value)


def _as_classes(classes: Any, n_labels: int | None) -> NDArray[Any] | None:
    """Check the label values of the last axis of the costs; None means 0..L-1."""
    if classes is None:
        return None if n_labels is None else np.arange(n_labels)
    values = as_numbers(classes, "classes", expected="different label values")
    values = np.atleast_1d(values)
    expected = len(values) if n_labels is None else n_labels
    good = values.shape == (expected,) and values.dtype.kind in "ui" and bool((values >= 0).all())
    if not good or len(np.unique(values)) < expected:
        raise ValueError(
            f"classes={classes!r}; expected {expected} different label values (integers, not "
            f"negative), one for each entry of the last axis of the costs."
        )
    return as_label_map(values, name="classes")  # signed, because -1 is stored with them


def _warn_of_proba(logits: NDArray[Any]) -> None:
    kind = ends_in(logits)
    if kind is not None:
        cure = {
            "proba": "sum to one at every pixel. Pass them to Scene.from_proba",
            "sigmoid": "are nearly 0 or 1, as after a sigmoid. Pass np.log(p / (1 - p)) instead",
        }[kind]
        warn_caller(
            f"logits seem to be probabilities, which a softmax would flatten: they {cure}.",
        )


def _checked(image: Any, values: Any, name: str, known: dict[str, Any]) -> NDArray[Any]:
    """Check scores ``(*spatial, L)`` against the image; where not valid, any value is allowed."""
    if hasattr(values, "detach"):  # a torch tensor, perhaps on a GPU, perhaps with a gradient
        values = values.detach().cpu().numpy()
    array = as_numbers(values, name, expected="real numbers (*spatial, L)")
    known.setdefault("spatial_ndim", array.ndim - 1)
    if known.get("valid") is not None and array.ndim > 1:
        known["valid"] = as_mask(known["valid"], array.shape[:-1])
        array = np.where(known["valid"][..., np.newaxis], array, 0)
    if isinstance(image, str | os.PathLike):
        return as_costs(array, name=name)
    if array.ndim == 4 and array.shape[0] == 1 and np.shape(image)[:2] == array.shape[2:]:
        return as_costs(
            array, spatial_shape=array.shape[2:], name=name
        )  # raises the error for a batch
    shape = as_image(image, spatial_ndim=known["spatial_ndim"]).shape[:-1]
    return as_costs(array, spatial_shape=shape, name=name)
