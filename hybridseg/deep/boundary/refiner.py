"""A refiner whose small network corrects labels near the boundaries of a segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils import check_random_state

try:
    import skorch  # noqa: F401
    import torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        "BoundaryRefiner needs PyTorch and skorch: pip install hybridseg[deep]"
    ) from error

from hybridseg.base import INTENSITY_RANGE, HasMethods, Interval, Scene, SoftRefiner, StrOptions
from hybridseg.deep.boundary.band import Surroundings
from hybridseg.deep.boundary.corrections import corrected, corrections
from hybridseg.deep.boundary.network import BoundaryNetwork
from hybridseg.deep.boundary.training import BoundaryTask, Settings
from hybridseg.deep.training.augment import AUGMENTS, Augmentation
from hybridseg.inference.learned import Examples, LearnedRefiner
from hybridseg.learning.learner import Learner
from hybridseg.learning.report import LearningReport
from hybridseg.unary.cross_fit import CV
from hybridseg.validation import IntensityRange


class BoundaryRefiner(LearnedRefiner, SoftRefiner):
    """Correct labels near boundaries by a small network that is trained on labeled images.

    Most errors of a good segmentation lie near its boundaries, and they can be corrected from a
    small neighborhood [1]_ [2]_ [3]_. The network sees the log-probabilities of the incoming
    Scene, the image, and the distance to the nearest boundary of the incoming segmentation. It
    adds a correction to the log-probabilities of pixels in a band around these boundaries. All
    other pixels keep their probabilities. ``fit`` judges the corrections on held-out images. It
    weakens them, down to nothing if necessary, until no class loses IoU and the mean IoU surely
    rises.

    Parameters
    ----------
    estimator : segmenter, optional
        Fitted inside; ``transform`` then takes images. Without it, the input is Scenes with costs.
    band : "auto" or float, default="auto"
        The width of the band on each side of a boundary, in the unit of the Scene's ``spacing``
        (pixels without one). "auto" is 8 pixels of the finest axis for images and 4 for volumes.
        Choose the distance by which boundaries are wrong. Time grows with the area of the band.
    hidden : int, default=32
        The number of channels of the network's layers.
    depth : int, default=5
        The number of layers with convolutions of side 3. Their dilations double from layer to
        layer, and stop where the network sees 1.5 widths of the band.
    n_patches : int, default=512
        The number of patches that the network learns from, drawn from all images around pixels of
        the band. There are fewer if they would take more than 1 GiB.
    patch_size : int, optional
        The extent of a patch along each axis, in pixels. None: 48 for images, 24 for volumes.
    max_epochs : int, default=10
        How often each patch is seen.
    batch_size : int, default=16
        The number of patches in a step.
    lr : float, default=0.005
        The highest learning rate of Adam.
    augment : {"upright", "dihedral"}, Augmentation or None, default="upright"
        Random augmentation of patches, as in :class:`hybridseg.DeepSegmenter`: "upright" mirrors
        left to right, for images with a fixed top; "dihedral" along all axes, with the last two
        axes swapped at random, for microscopy and aerial images. Both change contrast, brightness
        and tint, so that the network does not rely on the light of the training images. An
        :class:`hybridseg.unary.Augmentation` must keep the scale 1 and have no ``mirrored``.
    cv : int, "holdout", splitter or None, default=5
        With ``estimator``: the folds in which the inner segmenter is fitted, so that the network
        sees the costs of images that the segmenter was not trained on; see
        :class:`hybridseg.CrossFit`. None fits it once and warns.
    gate : int, splitter or None, default=3
        The folds of images on which the corrections are judged. A network is trained for each
        fold, and one on all images. The blocks of a single image serve as images. None uses all
        that was learned, without protection, in a quarter of the time.
    tolerance : float, default=0.005
        The loss of a class's IoU on held-out images that the gate accepts.
    intensity_range : {"dtype", "image"} or (low, high), optional
        How pixel values become colors. Default: as the Scene says.
    random_state : int, RandomState or None
        Seeds weights, patches and folds. On a CPU, equal seeds and equal numbers of threads give
        equal networks.
    device : str, default="auto"
        "cpu", "cuda" (or another device of torch), or "auto" for a GPU if there is one.

    Attributes
    ----------
    network_ : torch.nn.Module
        The network.
    strength_ : float
        The factor of its corrections, from 0 to 1, that the gate chose.
    learning_ : LearningReport
        The losses and the judgment. ``print(model.learning_)`` shows the judgment,
        ``model.learning_.plot()`` the trace.
    classes_ : ndarray of int, (L,)
        The label values.
    estimator_ : segmenter
        The fitted inner segmenter, where ``estimator`` was given.

    See Also
    --------
    hybridseg.DenseCRF : needs no labeled images, and looks farther.

    Notes
    -----
    A label is corrected only near pixels where its probability is at least 0.1: within the width
    of the band along each axis. Seeds of the Scene are not used. Pixels that are not valid have no
    influence. Images pass through the network in windows, so memory is bounded by a few copies of
    the costs. Probabilities do not depend on the number of threads, except for rounding.

    The network learns the labels of the training images and their colors, so images to come must
    be like them. The gate cannot see a difference that its held-out images do not have. Learned
    from frames of a single video of CamVid, the corrections passed the gate, but lowered the mean
    IoU of other videos (``python -m benchmarks boundary``). Learn from several videos, scanners or
    sites, and pass them as ``groups``.

    References
    ----------
    .. [1] A. Kirillov, Y. Wu, K. He, R. Girshick, "PointRend: image segmentation as rendering",
       CVPR, 2020.
    .. [2] Y. Yuan, J. Xie, X. Chen, J. Wang, "SegFix: model-agnostic boundary refinement for
       segmentation", ECCV, 2020.
    .. [3] C. Tang, H. Chen, X. Li, J. Li, Z. Zhang, X. Hu, "Look closer to segment better:
       boundary patch refinement for instance segmentation", CVPR, 2021.

    Examples
    --------
    >>> from hybridseg import BoundaryRefiner, PixelClassifier
    >>> from hybridseg.datasets import make_scenes
    >>> scenes = make_scenes(6, shape=(32, 48), random_state=0)
    >>> model = BoundaryRefiner(PixelClassifier(), cv=2, n_patches=8, max_epochs=1, random_state=0)
    >>> model.fit(scenes.images, scenes.labels).predict(scenes.images)[0].shape
    (32, 48)
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "estimator": [HasMethods(["fit", "transform"]), None],
        "band": [StrOptions({"auto"}), Interval(Real, 0, None, closed="neither")],
        "hidden": [Interval(Integral, 1, None, closed="left")],
        "depth": [Interval(Integral, 1, None, closed="left")],
        "n_patches": [Interval(Integral, 1, None, closed="left")],
        "patch_size": [Interval(Integral, 1, None, closed="left"), None],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "lr": [Interval(Real, 0, None, closed="neither")],
        "augment": [StrOptions(set(AUGMENTS)), Augmentation, None],
        "cv": [*CV, None],
        "gate": [
            Interval(Integral, 2, None, closed="left"),
            HasMethods(["split", "get_n_splits"]),
            None,
        ],
        "tolerance": [Interval(Real, 0, 1, closed="left")],
        "intensity_range": [*INTENSITY_RANGE, None],
        "random_state": ["random_state"],
        "device": [str],
    }

    #: No parameter here: this refiner always learns.
    learn: Any = "boundaries"
    network_: BoundaryNetwork
    strength_: float
    learning_: LearningReport

    def __init__(
        self,
        estimator: Any = None,
        *,
        band: float | str = "auto",
        hidden: int = 32,
        depth: int = 5,
        n_patches: int = 512,
        patch_size: int | None = None,
        max_epochs: int = 10,
        batch_size: int = 16,
        lr: float = 0.005,
        augment: str | Augmentation | None = "upright",
        cv: Any = 5,
        gate: Any = 3,
        tolerance: float = 0.005,
        intensity_range: IntensityRange | None = None,
        random_state: Any = None,
        device: str = "auto",
    ) -> None:
        self.estimator = estimator
        self.band = band
        self.hidden = hidden
        self.depth = depth
        self.n_patches = n_patches
        self.patch_size = patch_size
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.lr = lr
        self.augment = augment
        self.cv = cv
        self.gate = gate
        self.tolerance = tolerance
        self.intensity_range = intensity_range
        self.random_state = random_state
        self.device = device

    def _learn_from(
        self, scenes: Sequence[Scene], sources: Sequence[Any], groups: ArrayLike | None
    ) -> None:
        drawn = check_random_state(self.random_state).randint(2**31 - 1)
        given = {name: getattr(self, name) for name in Settings.__dataclass_fields__}
        task = BoundaryTask(
            Settings(**given | {"augment": _as_augmentation(self.augment)}),
            Examples(scenes, sources, self.classes_, Learner()),
            np.random.default_rng(drawn),
        )
        self.network_, self.strength_, self.learning_ = task.run(groups)

    def _marginals(self, scene: Scene) -> NDArray[np.float32]:
        self._check_fits(scene)
        around = Surroundings.of(scene, self.band)
        if self.strength_ == 0:
            return around.proba
        return corrected(around, corrections(self.network_, around), self.strength_)

    def _check_fits(self, scene: Scene) -> None:
        """Refuse other classes, channels or axes than those that the network has learned from."""
        network = self.network_
        if not np.array_equal(np.asarray(scene.classes), self.classes_):
            raise ValueError(
                f"a Scene has the classes {np.asarray(scene.classes).tolist()}; expected "
                f"{self.classes_.tolist()}, from which BoundaryRefiner has learned: fit it again."
            )
        shape = scene.colors.shape
        found, expected = (len(shape) - 1, shape[-1]), (network.ndim, network.n_channels)
        if found != expected:
            raise ValueError(
                f"an image has {found[0]} axes and {found[1]} channels; expected {expected[0]} "
                f"axes and {expected[1]} channels, from which BoundaryRefiner has learned: convert "
                f"the image, or fit again."
            )

    def _forget(self) -> None:
        super()._forget()
        for name in ("network_", "strength_"):
            self.__dict__.pop(name, None)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "network_")


def _as_augmentation(augment: str | Augmentation | None) -> Augmentation:
    """Return the augmentation that the parameter means."""
    if augment is None:
        return Augmentation("none", contrast=0, brightness=0, tint=0)
    found = AUGMENTS[augment] if isinstance(augment, str) else augment
    if tuple(found.scale) != (1, 1) or len(found.mirrored):
        raise ValueError(
            f"augment has scale={found.scale} and mirrored={found.mirrored}; expected (1, 1) and "
            f"none, because patches show boundaries at their own scale: leave both at their "
            f"defaults."
        )
    return found
