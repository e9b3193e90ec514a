"""The base class of estimators that contain a segmenter and pass on its results."""

from __future__ import annotations

from typing import Any

from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from hybridseg.base import ImageList, SegmenterMixin


def _holds_proba(wrapper: Any) -> bool:
    return hasattr(getattr(wrapper, "segmenter_", wrapper.segmenter), "predict_proba")


class WrapperMixin(SegmenterMixin):
    """Methods of an estimator that call its fitted segmenter.

    A subclass has the parameter ``segmenter``, and its ``fit`` sets ``segmenter_``, the fitted
    segmenter.
    """

    segmenter: Any
    segmenter_: Any

    def transform(self, X: Any) -> ImageList:
        """Turn images into Scenes with the costs of the fitted segmenter, ``segmenter_``.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of Scene
            Input for a refiner such as :class:`hybridseg.DenseCRF`.
        """
        check_is_fitted(self)
        return self.segmenter_.transform(X)

    @available_if(_holds_proba)
    def predict_proba(self, X: Any) -> ImageList:
        """Return the probabilities of the labels by the fitted segmenter, ``segmenter_``.

        Parameters
        ----------
        X : sequence of images, paths or Scenes

        Returns
        -------
        ImageList of ndarray of float32, (*spatial, L)
            In the order of ``classes_``; the probabilities of a pixel sum to one.
        """
        check_is_fitted(self)
        return self.segmenter_.predict_proba(X)
