"""Qualcomm Adreno GPUs: tensors as RGBA images, tiles from the texel roofline, OpenCL C."""
from tinynn.adreno.lower import lower

__all__ = ["lower"]
