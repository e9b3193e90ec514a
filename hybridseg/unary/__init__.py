"""Segmenters: images -> Scenes with a cost for every label at every pixel."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "cross_fit": ["CrossFit"],
        "deep": ["DeepSegmenter"],
        "deep_adaptation": ["DomainAdapter"],
        "deep_augment": ["Augmentation"],
        "deep_history": ["plot_history"],
        "deep_inference": ["Views"],
        "deep_uncertainty": ["Uncertainty"],
        "deep_features": ["DeepFeatures"],
        "deep_pretrained": ["PretrainedSegmenter"],
        "pixels": ["PixelClassifier"],
        "superpixels": ["SuperpixelClassifier"],
    },
)
