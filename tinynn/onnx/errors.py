"""What can be wrong with a model file."""
from __future__ import annotations


class ModelError(ValueError):
    """The file is not a valid model; the message says where and what to do."""


class UnsupportedModel(ModelError):  # noqa: N818 (public name)
    """The model is valid but uses operators that cannot be imported; the message lists them."""


class MetadataError(ModelError):
    """The model's metadata cannot be read as plain data, or contradicts the model."""
