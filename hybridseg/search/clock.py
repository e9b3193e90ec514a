"""Time of a search: what has passed, and what candidates will cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: The number of crops in an epoch of a network, below which an epoch costs the same for fewer
#: images.
_LEAST_CROPS = 64


class OutOfTimeError(Exception):
    """A candidate used up the time that it was given."""


class Clock:
    """A budget of seconds that begins to run now.

    Parameters
    ----------
    budget : float
        In seconds.
    now : callable, optional
        Returns the time in seconds; for tests.
    """

    def __init__(self, budget: float, now: Callable[[], float] = time.perf_counter) -> None:
        self.budget = budget
        self.now = now
        self._began = now()

    @property
    def passed(self) -> float:
        """The seconds since the clock was made."""
        return self.now() - self._began

    @property
    def left(self) -> float:
        """The seconds until the budget is spent; negative if it is exceeded."""
        return self.budget - self.passed

    def check(self, deadline: float) -> None:
        """Raise OutOfTimeError if more than ``deadline`` seconds have passed."""
        if self.passed > deadline:
            raise OutOfTimeError


@dataclass
class Pace:
    """Measured seconds of a segmenter, and predictions from them.

    Attributes
    ----------
    by_epochs : bool
        Whether the segmenter is trained by epochs, so that a fit costs as much as its epochs.
    fits : list of (int, float, float)
        The number of images, the share of the epochs, and the seconds of a fit.
    per_image : float
        The seconds of the prediction of an image.
    """

    by_epochs: bool = False
    fits: list[tuple[float, float, float]] = field(default_factory=list)
    per_image: float = 0.0

    def add(self, n_images: float, share: float, seconds: float) -> None:
        """Record a fit; of equal ones the quickest counts, as the first may compile code."""
        known = [fit for fit in self.fits if fit[:2] == (n_images, share)]
        quickest = min([seconds, *(fit[2] for fit in known)])
        self.fits = [fit for fit in self.fits if fit not in known]
        self.fits.append((n_images, share, quickest))

    def fit_seconds(self, n_images: float, share: float = 1.0) -> float:
        """Predict the seconds of a fit; 0 if nothing was measured.

        The seconds are a line through the fits of the most and of the fewest images. With fits of
        one size only, they are proportional to the number of images, which is an upper bound.
        """
        if not self.fits:
            return 0.0
        first, last = min(self.fits), max(self.fits)
        n_last, share_last, seconds = last
        if self.by_epochs:
            more = max(1.0, n_images / max(_LEAST_CROPS, n_last))
            return seconds * share / share_last * more
        if n_images <= n_last:
            return seconds
        slope = seconds / n_last
        if first[0] < n_last:
            slope = min(slope, max(0.0, (seconds - first[2]) / (n_last - first[0])))
        return seconds + slope * (n_images - n_last)

    def rung_seconds(self, n_images: int, share: float, n_folds: int) -> float:
        """Predict the seconds of fitting and scoring on all folds of a number of images."""
        n_trained = n_images * (n_folds - 1) / n_folds
        return n_folds * self.fit_seconds(n_trained, share) + n_images * self.per_image
