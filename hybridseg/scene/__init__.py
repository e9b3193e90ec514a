"""Scenes, the values that travel through a pipeline, and sequences of images and label maps."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "scene": ["Scene"],
        "sequences": ["ImageList"],
    },
)
