"""Running a float graph with a check that all it computes are numbers."""

from typing import Any

import torch
from torch import Tensor, fx

from pipeline.errors import UserError
from pipeline.quant import walk


class FiniteInterpreter(fx.Interpreter):
    """Runs a graph operator by operator, and refuses NaN and infinity where they first appear."""

    def run_node(self, n: fx.Node) -> Any:
        """The value of an operator.

        Raises:
            UserError: it is NaN or infinite somewhere.
        """
        value = super().run_node(n)
        if n.op == "call_function" and n.target not in walk.VIEWS:
            check_finite(value, n)
        return value


def check_finite(value: Tensor, node: fx.Node) -> None:
    """Refuse what an operator of the float network produces if it is no number.

    Raises:
        UserError: a value is NaN or infinite.
    """
    # NaN spreads to both extremes, so they are enough to find it.
    if not all(torch.isfinite(v) for v in torch.aminmax(value)):
        raise UserError(
            f"The float model produces NaN or infinity at {walk.module_path(node)} "
            f"({node.name}); check its weights and preprocessing."
        )
