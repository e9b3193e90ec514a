"""Segmenters: images -> Scenes with a cost for every label at every pixel."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "cross_fit": ["CrossFit"],
        "deep": ["DeepSegmenter"],
        "pixels": ["PixelClassifier"],
        "superpixels": ["SuperpixelClassifier"],
    },
)
