"""Files of stored results."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_json(path: Path, results: Any) -> None:
    """Write results to a temporary file, then replace the file atomically."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(json.dumps(results, indent=1, default=float) + "\n")
    os.replace(draft, path)
