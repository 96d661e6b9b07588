"""The OpenCL target for any vendor: plain buffers, one source text, no device needed to compile.

values: expressions as OpenCL C. points, contract: how kernels are spread over work-items.
layout: tensors to buffers. lower: all of it in order. `tinynn.adreno` builds on these parts.
"""
