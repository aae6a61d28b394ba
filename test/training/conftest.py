"""Data that several tests of the training programs share."""

import pytest
from prepared_folder import write_prepared


@pytest.fixture(scope="session")
def prepared(tmp_path_factory):
    """A folder with a tokenizer and cuts of noise."""
    return write_prepared(tmp_path_factory.mktemp("prepared"))
