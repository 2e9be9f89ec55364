"""Straight-line rewriting of ``main``: the machinery under every pass of ours.

A pass is a rule that sees one call at a time, in order, with its arguments already rewritten, and
returns a replacement or None. What was bound before can be looked up with ``Scope.producer``.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import tvm
from tvm import relax

from tvm_passes.errors import LoweringError
from tvm_passes.ops.base import config_of, operator_of

MAIN = "main"


@dataclass
class Scope:
    """The rewritten part of the function.

    Attributes:
        builder: where new bindings go.
        bindings: what each new variable is bound to.
        uses: how often each new variable was read before the pass, where it has a counterpart.
    """

    builder: relax.BlockBuilder
    bindings: dict[relax.Var, relax.Expr] = field(default_factory=dict)
    uses: Counter[relax.Var] = field(default_factory=Counter)

    def emit(self, expr: relax.Expr) -> relax.Var:
        """Bind ``expr`` to a new variable."""
        variable = self.builder.emit(expr)
        self.bindings[variable] = self.builder.lookup_binding(variable)
        return variable

    def producer(self, expr: relax.Expr) -> relax.Expr:
        """What ``expr`` is bound to; itself if it is no bound variable."""
        while isinstance(expr, relax.Var) and expr in self.bindings:
            expr = self.bindings[expr]
        return expr


Rule = Callable[[Scope, relax.Call], relax.Expr | None]
Finish = Callable[[Scope, relax.Expr], relax.Expr]


def main_bindings(mod: tvm.IRModule) -> list[relax.VarBinding]:
    """The bindings of ``main`` in order.

    Raises:
        LoweringError: ``main`` is not straight-line code.
    """
    body = mod[MAIN].body
    if not isinstance(body, relax.SeqExpr):
        raise LoweringError("main is not a sequence of bindings")
    return [binding for block in body.blocks for binding in block.bindings]


def read_variables(expr: relax.Expr) -> list[relax.Var]:
    """The variables that ``expr`` reads, each as often as it reads it."""
    if isinstance(expr, relax.Var):
        return [expr]
    if isinstance(expr, relax.Tuple):
        parts = list(expr.fields)
    elif isinstance(expr, relax.TupleGetItem):
        parts = [expr.tuple_value]
    else:
        parts = list(expr.args) if isinstance(expr, relax.Call) else []
    return [variable for part in parts for variable in read_variables(part)]


def substitute(expr: relax.Expr, new: dict[relax.Var, relax.Expr]) -> relax.Expr:
    """``expr`` with its variables replaced."""
    if isinstance(expr, relax.Var):
        return new.get(expr, expr)
    if isinstance(expr, relax.Tuple):
        return relax.Tuple([substitute(item, new) for item in expr.fields])
    if isinstance(expr, relax.TupleGetItem):
        source = substitute(expr.tuple_value, new)
        if isinstance(source, relax.Tuple):
            return source.fields[expr.index]
        return relax.TupleGetItem(source, expr.index)
    if isinstance(expr, relax.Call):
        arguments = [substitute(argument, new) for argument in expr.args]
        return relax.Call(expr.op, arguments, expr.attrs, expr.ty_args)
    return expr


def _apply(rule: Rule, scope: Scope, call: relax.Call) -> relax.Expr | None:
    try:
        return rule(scope, call)
    except LoweringError as error:
        name = None if operator_of(call) is None else getattr(config_of(call), "name", None)
        if name is None or str(error).startswith(f"{name}:"):
            raise
        raise LoweringError(f"{name}: {error}") from error


def rewrite_main(
    mod: tvm.IRModule,
    rule: Rule,
    params: list[relax.Var] | None = None,
    finish: Finish = lambda _, result: result,
) -> tvm.IRModule:
    """Rebuild ``main`` through ``rule``; unused bindings are removed.

    Args:
        mod: module whose ``main`` is straight-line code.
        rule: replacement of a call, or None to keep it.
        params: new parameters, where their types change.
        finish: replacement of the result.

    Raises:
        LoweringError: of the rule; the message begins with the tensor's name where it has one.
    """
    function = mod[MAIN]
    builder = relax.BlockBuilder()
    scope = Scope(builder)
    params = params or list(function.params)
    results = [binding.value for binding in main_bindings(mod)] + [function.body.body]
    uses = Counter(variable for result in results for variable in read_variables(result))
    new: dict[relax.Var, relax.Expr] = dict(zip(function.params, params, strict=True))

    def rebuild() -> relax.Expr:
        for binding in main_bindings(mod):
            value = substitute(binding.value, new)
            if isinstance(value, relax.Call):
                replacement = _apply(rule, scope, value)
                value = value if replacement is None else replacement
            if not isinstance(value, relax.Var | relax.Tuple):
                value = scope.emit(value)
            new[binding.var] = value
            if isinstance(value, relax.Var):
                scope.uses[value] += uses[binding.var]
        return finish(scope, substitute(function.body.body, new))

    failure: LoweringError | None = None
    with builder.function(MAIN, params, attrs=dict(function.attrs or {})):
        with builder.dataflow():
            try:
                result = rebuild()
            except LoweringError as error:  # TVM warns of a builder that is left half-way
                failure, result = error, params[0]
            output = builder.emit_output(result)
        builder.emit_func_output(output)
    if failure is not None:
        raise failure
    rebuilt = builder.get()
    for name, other in mod.functions_items():
        if name.name_hint != MAIN:
            rebuilt[name] = other
    return relax.transform.DeadCodeElimination([MAIN])(rebuilt)
