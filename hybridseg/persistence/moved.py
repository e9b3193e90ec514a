"""Where modules stood in files of the first format, and where they stand now.

A model file names classes by module. Files of the first format were written before the modules of
this package moved to rooms; their names are replaced before anything else is made of them.
"""

from __future__ import annotations

import io
import json
import zipfile
from typing import Any

from hybridseg.persistence.archives import read_archive

#: Modules within the package whose classes and functions a file may name: then, and now.
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
    "unary.deep_inference": "deep.prediction.inference",
    "unary.deep_pretrained": "deep.pretrained",
    "unary.deep_uncertainty": "deep.prediction.uncertainty",
    "unary.deep_validation": "deep.training.validation",
}
_PACKAGE = "hybridseg."
_SCHEMA = "schema.json"


def module_now(module: str) -> str:
    """The module that holds now what ``module`` held when the first format was written."""
    within = module.removeprefix(_PACKAGE)
    return _PACKAGE + MODULES[within] if within != module and within in MODULES else module


def name_now(name: str) -> str:
    """The full name, now, of a class or function that had ``name`` then."""
    module, dot, last = name.rpartition(".")
    return module_now(module) + dot + last


def manifest_now(part: Any) -> Any:
    """A manifest, or a part of it, with the names of now."""
    if isinstance(part, str):
        return name_now(part) if part.startswith(_PACKAGE) else part
    if isinstance(part, list):
        return [manifest_now(inner) for inner in part]
    if isinstance(part, dict):
        return {key: manifest_now(inner) for key, inner in part.items()}
    return part


def estimators_now(content: bytes) -> bytes:
    """The archive of a file's estimators, whose schema has the names of now.

    Raises
    ------
    ValueError
        It is no archive, or has no schema.
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
