"""The tiny sentence encoder of the retrieval tests."""

from tests.retrieval.conftest import encoder_folder  # noqa: F401 - a fixture
