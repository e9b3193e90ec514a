"""A trained segmenter, for what is done with one."""

import pytest


@pytest.fixture(scope="module")
def model(one_torch_thread):
    from tests.deep.subjects import fitted

    return fitted()
