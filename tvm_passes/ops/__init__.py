"""The integer dialect of Relax: operators on codes, one family per file.

Importing this package registers all of them.
"""

from tvm_passes.ops import (  # noqa: F401
    adalog,
    adalog_attention,
    add,
    attention,
    channels,
    dynamic_relu,
    elementwise,
    fused,
    gemm,
    matmul,
    norm,
    pad,
    pointwise,
    pooling,
    pwl,
    pwl8,
    qdq,
    resize,
    softmax,
    twin,
    uniform_attention,
)
