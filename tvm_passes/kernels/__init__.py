"""Kernels of the integer operators: TIR generators, one family per file.

Importing this package registers all of them.
"""

from tvm_passes.kernels import (  # noqa: F401
    attention,
    channels,
    elementwise,
    matmul,
    mean,
    norm,
    pad,
    pointwise,
    pooling,
    products,
    resize,
    softmax,
)
