"""Segmenters whose costs come from a neural network, and what they need: training, inference."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "adaptation.batch_statistics": ["BatchStatistics"],
        "adaptation.domain_adapter": ["DomainAdapter"],
        "adaptation.entropy": ["Entropy"],
        "adaptation.self_training": ["SelfTraining"],
        "boundary.refiner": ["BoundaryRefiner"],
        "crf_layer": ["CRFLayer"],
        "edge_features": ["EdgeFeatures"],
        "features": ["DeepFeatures"],
        "prediction.uncertainty": ["Uncertainty"],
        "prediction.views": ["Views"],
        "network_features": ["NetworkFeatures"],
        "pretrained": ["PretrainedSegmenter"],
        "segmenter": ["DeepSegmenter"],
        "training.augment": ["Augmentation"],
        "training.history": ["plot_history"],
    },
)
