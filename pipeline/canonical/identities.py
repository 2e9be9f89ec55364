"""Removal of operators that do nothing at inference."""

from pipeline.canonical.graph import (
    CAT,
    RESHAPE,
    ROLL,
    SLICE,
    GraphModule,
    Node,
    Target,
    aten,
    calls,
    erase,
    replace,
    shape,
)

_ALWAYS: frozenset[Target] = frozenset(
    {
        aten.dropout.default,
        aten.feature_dropout.default,
        aten.alpha_dropout.default,
        aten.clone.default,
        aten.contiguous.default,
        aten.alias.default,
        aten.detach.default,
        aten.lift_fresh_copy.default,
    }
)
_WHEN_SAME_SHAPE: frozenset[Target] = frozenset(
    {RESHAPE, SLICE, aten.view.default, aten.expand.default, aten.expand_as.default}
)
_WHEN_SAME_TYPE: frozenset[Target] = frozenset(
    {aten.to.dtype, aten.to.dtype_layout, aten.type_as.default, aten._to_copy.default}
)
_CHECKS: frozenset[Target] = frozenset(
    {aten._assert_tensor_metadata.default, aten._assert_async.msg, aten._assert_scalar.default}
)
"""Assertions that the export adds; every shape and type is static here."""

_PADS = frozenset({aten.pad.default, aten.constant_pad_nd.default})


def remove_identities(gm: GraphModule) -> None:
    """Lets the users of a no-op read its input: dropout, clone, empty pads, full slices, ..."""
    for node in calls(gm):
        if node.target in _CHECKS:
            erase(gm, node)
        elif _is_identity(node):
            source = node.args[0]
            replace(gm, node, source[0] if isinstance(source, list | tuple) else source)  # type: ignore[arg-type]


def _is_identity(node: Node) -> bool:
    target, source = node.target, node.args[0]
    if target is CAT:
        return len(source) == 1  # type: ignore[arg-type]
    if not isinstance(source, Node):
        return False
    if target in _ALWAYS:
        return True
    if target in _WHEN_SAME_SHAPE:
        return shape(source) == shape(node)
    if target in _WHEN_SAME_TYPE:
        return bool(source.meta["val"].dtype == node.meta["val"].dtype)
    if target in _PADS:
        return not any(node.args[1])  # type: ignore[arg-type]
    return target is ROLL and not any(node.args[1])  # type: ignore[arg-type]
