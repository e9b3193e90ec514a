"""Segmenters: images to Scenes with a cost for every label at every pixel.

Segmenters that need torch are in :mod:`hybridseg.deep`; their names can be imported from here too.
"""

import importlib as _importlib

import lazy_loader as _lazy

_attached, _, _here = _lazy.attach(
    __name__,
    submod_attrs={
        "blend": ["Blend"],
        "cross_fit": ["CrossFit"],
        "pixels": ["PixelClassifier"],
        "stacked": ["StackedSegmenter"],
        "superpixels": ["SuperpixelClassifier"],
    },
)
_of_deep = (
    "Augmentation",
    "DeepFeatures",
    "DeepSegmenter",
    "DomainAdapter",
    "PretrainedSegmenter",
    "Uncertainty",
    "Views",
    "plot_history",
)
__all__ = sorted([*_here, *_of_deep])


def __getattr__(name: str) -> object:
    if name in _of_deep:
        return getattr(_importlib.import_module("hybridseg.deep"), name)
    return _attached(name)


def __dir__() -> list[str]:
    return list(__all__)
