"""Pictures with known labels: synthetic scenes, annotated photographs, folders of files."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach(
    __name__,
    submod_attrs={
        "folder": ["LabelFile", "load_folder"],
        "images": ["read_image", "read_labels"],
        "nifti": ["read_nifti"],
        "photos": ["load_photos"],
        "reading": ["UnreadableFileError"],
        "synthetic": ["make_scenes"],
        "writing": ["write_labels"],
    },
)
