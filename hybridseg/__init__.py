"""Classical and deep image segmentation as interchangeable scikit-learn stages."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=["datasets", "features", "inference", "metrics", "networks", "pairwise", "unary"],
    submod_attrs={
        "inference.graph_cut": ["GraphCut"],
        "inference.grid_crf": ["GridCRF"],
        "inference.mean_field": ["DenseCRF"],
        "inference.region_competition": ["LevelSet"],
        "persistence": ["load", "save"],
        "scene": ["Scene"],
        "sequences": ["ImageList"],
        "unary.cross_fit": ["CrossFit"],
        "unary.deep": ["DeepSegmenter"],
        "unary.deep_adaptation": ["DomainAdapter"],
        "unary.deep_features": ["DeepFeatures"],
        "unary.deep_pretrained": ["PretrainedSegmenter"],
        "unary.pixels": ["PixelClassifier"],
        "unary.superpixels": ["SuperpixelClassifier"],
    },
)
__version__ = "0.1.0"
