"""What travels through a pipeline: a picture together with what is known about it so far."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.files.drafts import whole_file
from hybridseg.files.images import stated_facts
from hybridseg.scene.costs import (
    RegionCosts,
    costs_from_logits,
    costs_from_proba,
    ends_in,
    proba_from_costs,
)
from hybridseg.scene.deferred import Recipe, resolve
from hybridseg.space import nearest_valid
from hybridseg.validation import (
    IntensityRange,
    as_colors,
    as_costs,
    as_image,
    as_label_map,
    as_mask,
    as_numbers,
    only_valid,
    warn_caller,
)


class Source:
    """A field of a Scene that may hold an array, a path or a recipe, and gives the array."""

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
    """A field of a Scene that says what it was given, or else what the image's file says.

    ``spacing`` is the file's where the Scene has none and both agree on the number of axes;
    ``meta`` has the file's ``affine`` beside what it was given. Only the file's header is read,
    when somebody asks.
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
    """A picture and what is known about it so far: the one value that travels.

    A Pipeline hands each step only the output of the step before, and a CRF needs both the
    picture and the costs: so segmenters turn images into Scenes, refiners turn Scenes into Scenes,
    and users rarely see one. :meth:`from_logits` and :meth:`from_proba` are the front door for
    those who bring a network's output.

    A list of Scenes stays light: ``image`` may be a path, and ``image``, ``unary``, ``labels`` and
    ``regions`` may be recipes that are followed whenever the attribute is read (recent results
    are kept, up to 256 MB a process and no longer than their Scenes, and are read-only).

    Parameters
    ----------
    image : ndarray (*spatial[, C]), or a path to an image
        Any real dtype, as it came.
    unary : ndarray of float32, (*spatial, L), or RegionCosts, optional
        The cost of each label at each pixel, lower is better.
    labels : ndarray of int, (*spatial,), optional
        A hard segmentation, in the values of ``classes``; negative where there is none.
    classes : ndarray of int, (L,), optional
        The label value of each entry of the last axis of ``unary``; becomes int64.
    regions : ndarray of int32, (*spatial,), optional
        Superpixels, 0..R-1; those of ``unary`` where it is RegionCosts.
    seeds : ndarray of int, (*spatial,), optional
        Labels known for certain, in the values of ``classes``; negative where unknown.
    valid : ndarray of bool, (*spatial,), optional
        False where there is no data: such pixels (they may be NaN) are labelled -1 and influence
        no others.
    spacing : sequence of float, optional
        The distance between neighbouring pixels along each axis. Default: what the image's file
        says, where ``image`` is the path of a NIfTI volume, or of a TIFF volume of OME or ImageJ,
        in the file's unit; else 1.
    spatial_ndim : {2, 3}, optional
        The number of spatial axes, where neither the image nor its file tells.
    intensity_range : {"dtype", "image"} or (low, high), optional
        How values become colours on the scale 0..255; see
        :func:`hybridseg.validation.as_colors`. None: not stated, which reads as "dtype".
    ignore_label : int, optional
        A label value, beside the negative ones, that scores leave out.
    meta : mapping
        Anything else to carry along. Where ``image`` is the path of a NIfTI file, ``"affine"`` is
        the file's, (4, 4), from the voxel indices (x, y, z) to positions.

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
        """Make a Scene of an image and a network's raw outputs.

        Parameters
        ----------
        image : ndarray (*spatial[, C]), or a path
            The picture that the network saw, at the size of its output.
        logits : array-like of float, (*spatial, L)
            Raw scores, higher is better; a torch layout (L, H, W) needs ``np.moveaxis(x, 0, -1)``.
        classes : array-like of int, (L,), optional
            The label value of each channel. Default: 0..L-1.
        **known
            Further fields of the Scene, such as ``spacing``.

        Returns
        -------
        Scene
            With ``unary = -log_softmax(logits)``.

        Raises
        ------
        ValueError
            The shapes do not fit, or values are not finite.

        Warns
        -----
        UserWarning
            These are probabilities already, of which a softmax would make flatter ones.
        """
        scores = _checked(image, logits, "logits", known)
        _warn_of_proba(scores if known.get("valid") is None else scores[known["valid"]])
        return cls(image, costs_from_logits(scores), classes=classes, **known)

    @classmethod
    def from_proba(cls, image: Any, proba: ArrayLike, classes: Any = None, **known: Any) -> Scene:
        """Make a Scene of an image and probabilities ``(*spatial, L)`` that sum to one.

        Probabilities are raised to 1e-4 before the logarithm. Parameters and errors are those of
        :meth:`from_logits`; probabilities that are negative or whose sums are not one within 2%
        are a ValueError.
        """
        checked = _checked(image, proba, "proba", known)
        if known.get("valid") is not None:
            checked[~known["valid"]] = 1 / checked.shape[-1]
        sums = checked.sum(axis=-1, dtype=np.float64)
        if checked.min() < 0 or np.abs(sums - 1).max() > 0.02:
            raise ValueError(
                f"proba has a least value of {checked.min():g} and sums from {sums.min():g} to "
                f"{sums.max():g} over its last axis; expected probabilities that sum to one. Raw "
                f"network outputs go through Scene.from_logits."
            )
        return cls(image, costs_from_proba(checked), classes=classes, **known)

    def source(self, name: str) -> Any:
        """What a field holds as it was given: an array, a path, a recipe or RegionCosts."""
        return self.__dict__["_" + name if name in _SOURCES else name]

    def replace(self, **changes: Any) -> Scene:
        """Copy the Scene with some fields changed; paths and recipes stay unread.

        An array in place of the image's file keeps what the file says (spacing, affine).
        """
        given = {f.name: self.source(f.name) for f in fields(self)}
        if isinstance(changes.get("image"), np.ndarray):
            given |= self._stated(changes["image"].ndim)
        if unknown := set(changes) - set(given):
            raise TypeError(f"{sorted(unknown)} are not fields of a Scene: {sorted(given)}.")
        return Scene(**(given | changes))

    def _stated(self, ndim: int) -> dict[str, Any]:
        """What the image's file says, for an array of ``ndim`` axes in its place."""
        rank = stated_facts(self.source("image")).spatial_ndim
        if rank is None or ndim not in (rank, rank + 1):
            return {}
        known = {"spacing": self.spacing, "meta": self.meta}
        return known if self.spatial_ndim is not None else {**known, "spatial_ndim": rank}

    __replace__ = replace  # what copy.replace calls, from Python 3.13 on

    @property
    def rank(self) -> int:
        """The number of spatial axes: as given, or as costs, the file or the image's shape tell."""
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
        """As ``colors``, but the nearest valid pixel's (by ``spacing``) where not valid.

        Filters and networks then see no edge towards the missing data, and no colour that the
        image has not.
        """
        colors = self.colors
        if self.valid is None:
            return colors
        nearest = nearest_valid(as_mask(self.valid, colors.shape[:-1]), self.spacing)
        return colors if nearest is None else colors[nearest]

    @property
    def has_costs(self) -> bool:
        """Whether the Scene carries costs (without computing them)."""
        return self.source("unary") is not None

    @property
    def has_labels(self) -> bool:
        """Whether the Scene carries a hard segmentation (without computing it)."""
        return self.source("labels") is not None

    @property
    def region_costs(self) -> RegionCosts | None:
        """The costs region by region, or None where they were made pixel by pixel."""
        value = resolve(self.source("unary"))
        return value if isinstance(value, RegionCosts) else None

    @property
    def proba(self) -> NDArray[np.float32]:
        """The costs as probabilities ``(*spatial, L)``: the softmax of the negated costs."""
        if not self.has_costs:
            raise ValueError("this Scene has no unary costs, so it has no probabilities.")
        costs = self.unary
        if self.valid is None:
            return proba_from_costs(costs)
        return proba_from_costs(only_valid(costs, as_mask(self.valid, costs.shape[:-1])))

    @property
    def prediction(self) -> NDArray[Any]:
        """The segmentation in the values of ``classes``: the labels, else the cheapest label."""
        if self.has_labels:
            found = np.asarray(self.labels)
        elif self.has_costs and self.classes is not None:
            best = resolve(self.source("unary"))
            by_region = isinstance(best, RegionCosts)
            found = self.classes[(best.costs if by_region else best).argmin(axis=-1)]
            found = found[best.regions] if by_region else found
        else:
            raise ValueError("this Scene has neither labels nor costs with classes: nothing yet.")
        if self.valid is None:
            return found
        valid = as_mask(self.valid, found.shape)
        return np.where(valid, as_label_map(found), np.int64(-1))

    def store_costs(self, path: str | os.PathLike[str]) -> Scene:
        """Compute the costs once, keep them in an ``.npy`` file and refer to that file.

        Parameters
        ----------
        path : path ending in ".npy"
            It is there whole or not at all.

        Returns
        -------
        Scene
            Whose ``unary`` is memory-mapped from the file at every access.
        """
        target = Path(path)
        if target.suffix != ".npy":
            raise ValueError(f"path={str(path)!r}; expected the name of an .npy file.")
        costs = self.unary
        with whole_file(target) as file:
            np.save(file, costs)
        return self.replace(unary=str(target))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{f.name}={_summary(self.source(f.name))}"
            for f in fields(self)
            if f.name != "meta" and self.source(f.name) is not None
        )
        return f"Scene({shown})"


#: Fields that may hold a path or a recipe, or say what a file says; kept with an underscore.
_SOURCES = ("image", "unary", "labels", "regions", "spacing", "meta")


def _summary(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, RegionCosts):
        return f"<{len(value.costs)} regions>"
    return "<computed when read>" if isinstance(value, Recipe) else repr(value)


def _as_classes(classes: Any, n_labels: int | None) -> NDArray[Any] | None:
    """Check the label values of the costs' last axis; None counts them from 0."""
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
    return as_label_map(values, name="classes")  # with a sign, for -1 stands beside them


def _warn_of_proba(logits: NDArray[Any]) -> None:
    kind = ends_in(logits)
    if kind is not None:
        cure = {
            "proba": "sum to one at every pixel: pass them to Scene.from_proba",
            "sigmoid": "are nearly 0 or 1, as after a sigmoid: pass np.log(p / (1 - p)) of them",
        }[kind]
        warn_caller(
            f"logits are probabilities already, which a softmax would make flatter: they {cure}.",
        )


def _checked(image: Any, values: Any, name: str, known: dict[str, Any]) -> NDArray[Any]:
    """Check scores ``(*spatial, L)`` against the image; what is not valid may be anything."""
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
        return as_costs(array, spatial_shape=array.shape[2:], name=name)  # says what is wrong
    shape = as_image(image, spatial_ndim=known["spatial_ndim"]).shape[:-1]
    return as_costs(array, spatial_shape=shape, name=name)
