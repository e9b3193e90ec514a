"""Data sets with label maps (synthetic, photographs, folders), and the readers of their files."""

from hybridseg.datasets.folder import LabelFile, load_folder
from hybridseg.datasets.photos import load_photos
from hybridseg.datasets.synthetic import make_scenes
from hybridseg.files.images import read_image, read_labels
from hybridseg.files.nifti import read_nifti
from hybridseg.files.reading import UnreadableFileError
from hybridseg.files.writing import write_labels

__all__ = [
    "LabelFile",
    "UnreadableFileError",
    "load_folder",
    "load_photos",
    "make_scenes",
    "read_image",
    "read_labels",
    "read_nifti",
    "write_labels",
]
