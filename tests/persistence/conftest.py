"""A fixture that saves a small model."""

import pytest

from hybridseg import save
from tests.persistence.archives_made import (
    path_for,
)
from tests.subjects import halves, pixels

X, Y = halves()


@pytest.fixture
def saved(tmp_path):
    return save(pixels().fit(X, Y), path_for(tmp_path))
