"""Old and new names of modules, so that model files of the first format can be loaded.

A model file names each class with its module. Files of the first format were written before the
modules of this package moved. The old names are replaced before the file is checked.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from hybridseg.persistence.archives import read_archive

#: The old and the new names of modules whose classes and functions a file may name.
MODULES = {
    "costs": "scene.costs",
    "features.superpixels": "features.slic",
    "inference.graph_cut": "inference.cuts.graph_cut",
    "inference.grid_crf": "inference.mean_field.grid_crf",
    "inference.mean_field": "inference.mean_field.dense_crf",
    "inference.region_competition": "inference.contours.level_set",
    "networks.class_weights": "losses.class_weights",
    "networks.distance_maps": "losses.distance_maps",
    "networks.loss_base": "losses.base",
    "networks.losses": "losses.combined",
    "networks.pixel_losses": "losses.pixels",
    "networks.region_losses": "losses.regions",
    "persistence": "persistence.model_file",
    "scene": "scene.scene",
    "sequences": "scene.sequences",
    "unary.deep": "deep.segmenter",
    "unary.deep_adaptation": "deep.adaptation.domain_adapter",
    "unary.deep_augment": "deep.training.augment",
    "unary.deep_checkpoint": "deep.training.checkpoint",
    "unary.deep_divergence": "deep.training.divergence",
    "unary.deep_features": "deep.features",
    "unary.deep_inference": "deep.prediction.views",
    "unary.deep_pretrained": "deep.pretrained",
    "unary.deep_uncertainty": "deep.prediction.uncertainty",
    "unary.deep_validation": "deep.training.validation",
}
_PACKAGE = "hybridseg."
_SCHEMA = "schema.json"


def module_now(module: str) -> str:
    """Return the new name of a module that a file of the first format calls ``module``."""
    within = module.removeprefix(_PACKAGE)
    return _PACKAGE + MODULES[within] if within != module and within in MODULES else module


def name_now(name: str) -> str:
    """Return the new full name of a class or function that had the full name ``name``."""
    module, dot, last = name.rpartition(".")
    return module_now(module) + dot + last


def manifest_now(part: Any) -> Any:
    """Return a manifest, or a part of one, with new names."""
    if isinstance(part, str):
        return name_now(part) if part.startswith(_PACKAGE) else part
    if isinstance(part, list):
        return [manifest_now(inner) for inner in part]
    if isinstance(part, dict):
        return {key: manifest_now(inner) for key, inner in part.items()}
    return part


def estimators_now(content: bytes) -> bytes:
    """Return the archive of the estimators of a file, with new names in its schema.

    Raises
    ------
    ValueError
        ``content`` is not an archive, or has no schema.
    """
    entries = read_archive(content)
    if _SCHEMA not in entries:
        raise ValueError(f"its estimators have no {_SCHEMA}")
    entries[_SCHEMA] = json.dumps(_schema_now(json.loads(entries[_SCHEMA]))).encode()
    renamed = io.BytesIO()
    with zipfile.ZipFile(renamed, "w") as archive:
        for name, entry in entries.items():
            archive.writestr(name, entry)
    return renamed.getvalue()


def _schema_now(part: Any) -> Any:
    if isinstance(part, list):
        return [_schema_now(inner) for inner in part]
    if not isinstance(part, dict):
        return part
    found = {key: _schema_now(inner) for key, inner in part.items()}
    if isinstance(found.get("__module__"), str):
        found["__module__"] = module_now(found["__module__"])
    return found
