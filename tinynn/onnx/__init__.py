"""Reading ONNX models: `import_model` turns a file into a graph."""
from tinynn.onnx.errors import MetadataError, ModelError, UnsupportedModel
from tinynn.onnx.reader import import_model

__all__ = ["MetadataError", "ModelError", "UnsupportedModel", "import_model"]
