"""Average pools of size 1 with a stride only drop pixels."""

from typing import Any

from pipeline.canonical.graph import (
    ADD,
    CONV,
    SLICE,
    GraphModule,
    Node,
    aten,
    call,
    calls,
    is_call,
    replace,
    set_weights,
    shape,
    weights,
)


def rewrite_subsampling(gm: GraphModule) -> None:
    """A 1x1 average pool joins a parallel depthwise convolution, or becomes two strided slices.

    Beside an equally strided, centred depthwise convolution of the same input whose result it is
    added to, it is 1 more on the centre tap (EfficientFormerV2's query, arXiv 2212.08059, 3.4).
    """
    for pool in calls(gm, aten.avg_pool2d.default):
        if pool.args[1] != [1, 1] or pool.args[3] != [0, 0] or pool.args[6] is not None:
            continue
        if not _join_depthwise(gm, pool):
            _to_slices(gm, pool)


def _join_depthwise(gm: GraphModule, pool: Node) -> bool:
    if len(pool.users) != 1:
        return False
    (add,) = pool.users
    if not is_call(add, ADD) or not is_call(add.args[0], CONV) or add.args[1] is not pool:
        conv: Any = add.args[1] if is_call(add, ADD) else None
    else:
        conv = add.args[0]
    if not is_call(conv, CONV) or len(conv.users) != 1 or conv.args[0] is not pool.args[0]:
        return False
    found = weights(gm, conv)
    _, _, _, stride, padding, dilation, groups = conv.args
    if found is None or stride != pool.args[2] or groups != shape(conv)[1]:
        return False
    weight, bias = found
    height, width = weight.shape[2:]
    centre = [dilation[0] * (height - 1) // 2, dilation[1] * (width - 1) // 2]
    if height % 2 == 0 or width % 2 == 0 or padding != centre or weight.shape[1] != 1:
        return False
    weight = weight.double()
    weight[:, 0, height // 2, width // 2] += 1
    set_weights(gm, conv, weight, bias)
    replace(gm, add, conv)
    return True


def _to_slices(gm: GraphModule, pool: Node) -> None:
    result: Any = pool.args[0]
    for dim, step in zip((-2, -1), pool.args[2], strict=True):  # type: ignore[arg-type]
        axis = len(shape(pool)) + dim
        if step != 1:
            result = call(gm, pool, SLICE, result, axis, 0, shape(result)[axis], step)
    replace(gm, pool, result)
