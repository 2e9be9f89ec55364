"""The one exception of the compiler side."""


class LoweringError(Exception):
    """A network that cannot be lowered to integers.

    The message names the operator, the tensor (with its PyTorch module path) and the reason.
    """
