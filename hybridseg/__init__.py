"""Image segmentation with classical and deep stages that are interchangeable in scikit-learn."""

import lazy_loader as _lazy

from hybridseg.version import __version__ as __version__

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submodules=[
        "datasets",
        "deep",
        "features",
        "inference",
        "losses",
        "metrics",
        "networks",
        "pairwise",
        "unary",
    ],
    submod_attrs={
        "deep.adaptation.domain_adapter": ["DomainAdapter"],
        "deep.boundary.refiner": ["BoundaryRefiner"],
        "deep.crf_layer": ["CRFLayer"],
        "deep.features": ["DeepFeatures"],
        "deep.pretrained": ["PretrainedSegmenter"],
        "deep.segmenter": ["DeepSegmenter"],
        "inference.contours.level_set": ["LevelSet"],
        "inference.crf": ["CRF"],
        "inference.cuts.graph_cut": ["GraphCut"],
        "inference.mean_field.dense_crf": ["DenseCRF"],
        "inference.mean_field.grid_crf": ["GridCRF"],
        "inference.random_walk.walker": ["RandomWalker"],
        "persistence": ["load", "save"],
        "scene.scene": ["Scene"],
        "scene.sequences": ["ImageList"],
        "search.auto": ["AutoHybrid"],
        "unary.blend": ["Blend"],
        "unary.cross_fit": ["CrossFit"],
        "unary.pixels": ["PixelClassifier"],
        "unary.stacked": ["StackedSegmenter"],
        "unary.superpixels": ["SuperpixelClassifier"],
    },
)
