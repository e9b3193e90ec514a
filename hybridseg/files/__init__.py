"""Images, volumes and label maps on disk."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "images": ["read_image", "read_labels"],
        "nifti": ["read_nifti"],
        "reading": ["UnreadableFileError"],
        "writing": ["write_labels"],
    },
)
