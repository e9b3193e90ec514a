"""What travels through a pipeline: a picture together with what is known about it so far."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridseg.validation import IntensityRange, as_colors, as_costs, as_image, as_mask, as_spacing

#: Probabilities are raised to this before their logarithm is taken: a forest's 0 of 100 votes is
#: not a proof, and no later stage could overrule an infinite cost.
MIN_PROBABILITY = 1e-4


def costs_from_proba(
    proba: ArrayLike, *, minimum: float = MIN_PROBABILITY
) -> NDArray[np.float32]:
    """Turn probabilities ``(..., L)`` into costs, ``-log(max(p, minimum))``, as float32."""
    clipped = np.maximum(np.asarray(proba, dtype=np.float32), np.float32(minimum))
    return -np.log(clipped)


def proba_from_costs(costs: NDArray[Any]) -> NDArray[np.float32]:
    """Softmax of the negated costs over the last axis: probabilities that sum to one."""
    scores = np.asarray(costs.min(axis=-1, keepdims=True) - costs, dtype=np.float32)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    return scores


def costs_from_logits(logits: ArrayLike) -> NDArray[np.float32]:
    """Turn a network's raw outputs ``(..., L)`` into costs, ``-log_softmax``, as float32."""
    scores = np.asarray(logits, dtype=np.float32)
    scores = scores - scores.max(axis=-1, keepdims=True)
    return np.log(np.exp(scores).sum(axis=-1, keepdims=True)) - scores


class ImageList(list[Any]):
    """A list with one entry per image, which NumPy sees as a 1-D array of objects.

    Results have differing sizes, so they cannot be stacked; yet scikit-learn's
    ``cross_val_predict`` concatenates what the folds return. As a 1-D object array the list
    concatenates, and is sliced, image by image.

    Examples
    --------
    >>> import numpy as np
    >>> from hybridseg import ImageList
    >>> maps = ImageList([np.zeros((2, 3), int), np.ones((4, 5), int)])
    >>> np.concatenate([maps, maps]).shape
    (4,)
    """

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        out = np.empty(len(self), dtype=object)
        for i, item in enumerate(self):
            out[i] = item
        return out

    @overload
    def __getitem__(self, index: SupportsIndex) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> ImageList: ...
    def __getitem__(self, index: SupportsIndex | slice) -> Any:
        taken = super().__getitem__(index)
        return ImageList(taken) if isinstance(index, slice) else taken


@dataclass(frozen=True, eq=False)
class RegionCosts:
    """Costs that are constant within each region, kept small until somebody asks for pixels.

    Attributes
    ----------
    regions : ndarray of int32, (*spatial,)
        The region of each pixel, 0..R-1.
    costs : ndarray of float32, (R, L)
        The cost of each label in each region, lower is better.
    """

    regions: NDArray[np.int32]
    costs: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        return int(self.regions.nbytes + self.costs.nbytes)

    def pixels(self) -> NDArray[np.float32]:
        """Spread the regions' costs over their pixels: ``(*spatial, L)``."""
        return self.costs[self.regions]


@dataclass(frozen=True, eq=False)
class Recipe:
    """A value of a Scene that is computed when somebody asks for it.

    Attributes
    ----------
    compute : callable
        ``compute(scene)`` gives the value: a bound method of a fitted estimator.
    scene : Scene
        What it is computed from.
    """

    compute: Callable[[Scene], Any]
    scene: Scene

    def __call__(self) -> Any:
        return _RECENT.get(self)


class _RecentResults:
    """The last results of recipes, within a budget of bytes, so that asking twice costs once."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self._held: OrderedDict[int, tuple[Recipe, Any]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, recipe: Recipe) -> Any:
        key = id(recipe)  # unique while the recipe is held here
        with self._lock:
            if key in self._held:
                self._held.move_to_end(key)
                return self._held[key][1]
        value = _frozen(recipe.compute(recipe.scene))
        with self._lock:
            if value.nbytes <= self.budget:
                self._held[key] = (recipe, value)
            while sum(kept.nbytes for _, kept in self._held.values()) > self.budget:
                self._held.popitem(last=False)
        return value


def _frozen(value: Any) -> Any:
    """Nobody may write into a result that others will be handed again."""
    arrays = (value.regions, value.costs) if isinstance(value, RegionCosts) else (value,)
    for array in arrays:
        array.setflags(write=False)
    return value


_RECENT = _RecentResults(budget=256 * 2**20)


class _Source:
    """A field of a Scene that may hold an array, a path or a recipe, and gives the array."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.slot = "_" + name

    def __get__(self, scene: Scene | None, owner: type | None = None) -> Any:
        if scene is None:  # the dataclass decorator asks for the default
            return None
        value = _resolve(scene.__dict__[self.slot])
        return value.pixels() if isinstance(value, RegionCosts) else value

    def __set__(self, scene: Scene, value: Any) -> None:
        scene.__dict__[self.slot] = value


def _resolve(source: Any) -> Any:
    if isinstance(source, Recipe):
        return source()
    if isinstance(source, str | os.PathLike):
        return _read(Path(source))
    return source


def _read(path: Path) -> NDArray[Any]:
    if path.suffix == ".npy":
        return np.asarray(np.load(path, mmap_mode="r"))
    from hybridseg.datasets.images import read_image

    return read_image(path)


@dataclass(frozen=True, eq=False, repr=False)
class Scene:
    """A picture and what is known about it so far: the one value that travels.

    A Pipeline hands each step only the output of the step before, and a CRF needs both the
    picture and the costs: so segmenters turn images into Scenes, refiners turn Scenes into Scenes,
    and users rarely see one. :meth:`from_logits` and :meth:`from_proba` are the front door for
    those who bring a network's output.

    A list of Scenes stays light: ``image`` may be a path, and ``image``, ``unary`` and ``labels``
    may be recipes that are followed whenever the attribute is read (recent results are kept, up to
    256 MB a process, and are read-only).

    Parameters
    ----------
    image : ndarray (*spatial[, C]), or a path to an image
        Any real dtype, as it came.
    unary : ndarray of float32, (*spatial, L), or RegionCosts, optional
        The cost of each label at each pixel, lower is better.
    labels : ndarray of int, (*spatial,), optional
        A hard segmentation, in the values of ``classes``; negative where there is none.
    classes : ndarray of int, (L,), optional
        The label value of each entry of the last axis of ``unary``.
    regions : ndarray of int32, (*spatial,), optional
        Superpixels, 0..R-1.
    seeds : ndarray of int, (*spatial,), optional
        Labels known for certain, in the values of ``classes``; negative where unknown.
    valid : ndarray of bool, (*spatial,), optional
        False where there is no data: such pixels (they may be NaN) are labelled -1 and influence
        no others.
    spacing : sequence of float, optional
        The distance between neighbouring pixels along each axis. Default: 1.
    spatial_ndim : {2, 3}, optional
        The number of spatial axes, where the image alone does not tell.
    intensity_range : {"dtype", "image"} or (low, high), optional
        How values become colours on the scale 0..255; see
        :func:`hybridseg.validation.as_colors`. None: not stated, which reads as "dtype".
    ignore_label : int, optional
        A label value, beside the negative ones, that scores leave out.
    meta : mapping
        Anything else to carry along.

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

    image: Any = _Source()
    unary: Any = _Source()
    labels: Any = _Source()
    classes: NDArray[Any] | None = None
    regions: Any = None
    seeds: NDArray[Any] | None = None
    valid: NDArray[np.bool_] | None = None
    spacing: Sequence[float] | float | None = None
    spatial_ndim: int | None = None
    intensity_range: IntensityRange | None = None
    ignore_label: int | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.source("image") is None:
            raise ValueError("image is None; a Scene starts from an image or a path to one.")

    @classmethod
    def from_logits(
        cls, image: Any, logits: ArrayLike, classes: ArrayLike | None = None, **known: Any
    ) -> Scene:
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
        """
        scores = _checked(image, logits, "logits", known)
        return cls._with_costs(image, costs_from_logits(scores), classes, known)

    @classmethod
    def from_proba(
        cls, image: Any, proba: ArrayLike, classes: ArrayLike | None = None, **known: Any
    ) -> Scene:
        """Make a Scene of an image and probabilities ``(*spatial, L)`` that sum to one.

        Probabilities are raised to 1e-4 before the logarithm. Parameters and errors are those of
        :meth:`from_logits`; probabilities that are negative or whose sums are not one within 2%
        are a ValueError.
        """
        checked = _checked(image, proba, "proba", known)
        sums = checked.sum(axis=-1)
        if checked.min() < 0 or np.abs(sums - 1).max() > 0.02:
            raise ValueError(
                f"proba has a least value of {checked.min():g} and sums from {sums.min():g} to "
                f"{sums.max():g} over its last axis; expected probabilities that sum to one. Raw "
                f"network outputs go through Scene.from_logits."
            )
        return cls._with_costs(image, costs_from_proba(checked), classes, known)

    @classmethod
    def _with_costs(
        cls, image: Any, unary: NDArray[np.float32], classes: Any, known: dict[str, Any]
    ) -> Scene:
        n_labels = unary.shape[-1]
        values = np.arange(n_labels) if classes is None else np.asarray(classes)
        if values.shape != (n_labels,) or len(set(values.tolist())) < n_labels:
            raise ValueError(
                f"classes={classes!r}; expected {n_labels} different label values, one for each "
                f"entry of the last axis of the costs."
            )
        return cls(image, unary, classes=values, spatial_ndim=unary.ndim - 1, **known)

    def source(self, name: str) -> Any:
        """What a field holds as it was given: an array, a path, a recipe or RegionCosts."""
        return self.__dict__["_" + name if name in ("image", "unary", "labels") else name]

    def replace(self, **changes: Any) -> Scene:
        """Copy the Scene with some fields changed; paths and recipes stay unread."""
        given = {f.name: self.source(f.name) for f in fields(self)}
        if unknown := set(changes) - set(given):
            raise TypeError(f"{sorted(unknown)} are not fields of a Scene: {sorted(given)}.")
        return Scene(**(given | changes))

    __replace__ = replace  # what copy.replace calls, from Python 3.13 on

    @property
    def rank(self) -> int:
        """The number of spatial axes: as given, or as the costs or the image's shape tell."""
        if self.spatial_ndim is not None:
            return self.spatial_ndim
        unary = self.source("unary")
        if isinstance(unary, np.ndarray):
            return unary.ndim - 1
        return as_image(self.image).ndim - 1

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
            intensity_range=self.intensity_range or "dtype",
            valid=self.valid,
        )

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
        value = _resolve(self.source("unary"))
        return value if isinstance(value, RegionCosts) else None

    @property
    def proba(self) -> NDArray[np.float32]:
        """The costs as probabilities ``(*spatial, L)``: the softmax of the negated costs."""
        if not self.has_costs:
            raise ValueError("this Scene has no unary costs, so it has no probabilities.")
        return proba_from_costs(self.unary)

    @property
    def prediction(self) -> NDArray[Any]:
        """The segmentation in the values of ``classes``: the labels, else the cheapest label."""
        if self.has_labels:
            found = np.asarray(self.labels)
        elif self.has_costs and self.classes is not None:
            best = _resolve(self.source("unary"))
            by_region = isinstance(best, RegionCosts)
            found = self.classes[(best.costs if by_region else best).argmin(axis=-1)]
            found = found[best.regions] if by_region else found
        else:
            raise ValueError("this Scene has neither labels nor costs with classes: nothing yet.")
        if self.valid is None:
            return found
        return np.where(as_mask(self.valid, found.shape), found, -1)

    def store_costs(self, path: str | os.PathLike[str]) -> Scene:
        """Compute the costs once, keep them in an ``.npy`` file and refer to that file.

        Parameters
        ----------
        path : path ending in ".npy"
            Written under a temporary name and renamed, so it is whole or absent.

        Returns
        -------
        Scene
            Whose ``unary`` is memory-mapped from the file at every access.
        """
        target = Path(path)
        if target.suffix != ".npy":
            raise ValueError(f"path={str(path)!r}; expected the name of an .npy file.")
        draft = target.with_name(f".{target.stem}.{os.getpid()}.npy")
        try:
            np.save(draft, self.unary)
            os.replace(draft, target)
        finally:
            draft.unlink(missing_ok=True)
        return self.replace(unary=str(target))

    def __repr__(self) -> str:
        shown = ", ".join(
            f"{f.name}={_summary(self.source(f.name))}"
            for f in fields(self)
            if f.name != "meta" and self.source(f.name) is not None
        )
        return f"Scene({shown})"


def _summary(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return f"<{value.dtype} {value.shape}>"
    if isinstance(value, RegionCosts):
        return f"<{len(value.costs)} regions>"
    return "<computed when read>" if isinstance(value, Recipe) else repr(value)


def _checked(image: Any, values: ArrayLike, name: str, known: dict[str, Any]) -> NDArray[Any]:
    array = as_costs(values, name=name)
    if isinstance(image, str | os.PathLike):
        return array
    rank = known.pop("spatial_ndim", None) or array.ndim - 1
    shape = as_image(image, spatial_ndim=rank).shape[:-1]
    return as_costs(array, spatial_shape=shape, name=name)


def as_scenes(X: Any, *, n_channels: int | None = None, **unstated: Any) -> ImageList:
    """Wrap each item of ``X`` (images, paths or Scenes) in a Scene, reading none of them.

    Parameters
    ----------
    X : sequence of images, paths and Scenes, or an array with one more axis
        One item per image; sizes may differ.
    n_channels : int, optional
        The number of channels, where it is known; only used to recognise a bare picture.
    **unstated
        Fields of the Scenes, such as ``spatial_ndim`` and ``intensity_range``; a Scene that comes
        with such a field keeps its own.

    Raises
    ------
    TypeError
        ``X`` is no sequence, or holds something that is no image.
    ValueError
        ``X`` is empty, or is one bare picture.
    """
    _refuse_bare(X, unstated.get("spatial_ndim"), n_channels)
    if len(X) == 0:
        raise ValueError("X is empty; expected at least one image in a list.")
    return ImageList(_as_scene(X[i], i, unstated) for i in range(len(X)))


def _as_scene(item: Any, position: int, unstated: dict[str, Any]) -> Scene:
    if isinstance(item, Scene):
        missing = {name: value for name, value in unstated.items() if item.source(name) is None}
        return item.replace(**missing) if missing else item
    if isinstance(item, list | tuple):
        item = np.asarray(item)
    if isinstance(item, str | os.PathLike) or hasattr(item, "__array__"):
        return Scene(item, **unstated)
    raise TypeError(
        f"X[{position}] is a {type(item).__name__}; expected an image array, a path or a Scene."
    )


def _refuse_bare(X: Any, spatial_ndim: int | None, n_channels: int | None) -> None:
    """A bare picture would be split into its rows without a word."""
    wrap = "wrap it in a list: [image]."
    if isinstance(X, Scene):
        raise ValueError("X is one Scene; expected a sequence of them: wrap it in a list.")
    if isinstance(X, str | os.PathLike):
        raise ValueError(f"X={str(X)!r} is one path; expected a sequence of images: {wrap}")
    if not (hasattr(X, "__len__") and hasattr(X, "__getitem__")) or isinstance(X, Mapping):
        raise TypeError(f"X is a {type(X).__name__}; expected a sequence of images.")
    if not isinstance(X, np.ndarray) or X.dtype == object:
        return
    rank = spatial_ndim or 2
    looks_bare = X.ndim <= rank or (
        X.ndim == rank + 1 and (X.shape[-1] <= 4 or n_channels not in (None, 1))
    )
    if looks_bare:
        raise ValueError(f"X is one array of shape {X.shape}, which looks like one picture; {wrap}")


def as_sources(y: Any, n_images: int) -> Sequence[Any]:
    """Check that ``y`` is a sequence with one label map (or path) per image; reads none.

    Raises
    ------
    TypeError
        ``y`` is missing or no sequence.
    ValueError
        Its length differs from X's.
    """
    if y is None:
        raise TypeError("y is None; expected a sequence of label maps, one per image.")
    if not (hasattr(y, "__len__") and hasattr(y, "__getitem__")) or isinstance(y, str | Mapping):
        raise TypeError(f"y is a {type(y).__name__}; expected a sequence of label maps.")
    if len(y) != n_images:
        raise ValueError(
            f"X holds {n_images} images but y holds {len(y)} label maps; expected one per image"
            + (" (wrap a single map in a list)." if n_images == 1 else ".")
        )
    return [y[i] for i in range(n_images)]


def read_label_source(source: Any) -> Any:
    """A label map as it was given, read from its file where it is a path."""
    if isinstance(source, str | os.PathLike):
        from hybridseg.datasets.images import read_labels

        return read_labels(source)
    return source
