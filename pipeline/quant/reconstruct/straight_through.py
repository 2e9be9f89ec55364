"""Quantization that gradients pass: LSQ (ICLR 2020), section 2.1, with QDrop (ICLR 2022)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from pipeline.quant.reconstruct.masks import random_mask

Restore = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`(x, scale)` to the restored values, and where nothing was clipped."""


def straight_through(x: Tensor, scale: Tensor, restore: Restore, drop: float) -> Tensor:
    """Quantized and dequantized `x`, differentiated as if nothing but clipping happened to it.

    Every family is homogeneous: what it restores is the scale times a function of x / scale. So the
    derivative by the scale is `(restored - x) / scale` where x is in range and `restored / scale`
    where it is clipped.

    Args:
        x: any shape, under `vmap` or not.
        scale: broadcasts against it.
        restore: the quantizer.
        drop: probability with which a value stays as it is.
    """
    result: Tensor = _StraightThrough.apply(x, scale, restore, drop)[0]  # type: ignore[no-untyped-call]
    return result


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, scale: Tensor, restore: Restore, drop: float) -> tuple[Tensor, ...]:
        restored, inside = restore(x, scale)
        if drop == 0:
            return restored.clone(), restored, inside, x.new_ones(())
        kept = random_mask(x, 1 - drop)
        # Much faster than `where`, which branches on every random value.
        return torch.lerp(x, restored, kept), restored, inside, kept

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, scale, _, _ = inputs
        _, *others = output
        ctx.mark_non_differentiable(*others)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, scale, *others)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        x, scale, restored, inside, kept = ctx.saved_tensors
        quantized = gradient * kept
        passed = quantized * inside
        by_scale = None
        if ctx.needs_input_grad[1]:
            if scale.numel() == 1:
                whole = torch.dot(quantized.flatten(), restored.flatten())
                whole = whole - torch.dot(passed.flatten(), x.flatten())
                by_scale = (whole / scale.flatten()).reshape(scale.shape)
            else:
                slope = quantized * restored - passed * x
                by_scale = slope.sum_to_size(scale.shape) / scale
        return gradient - quantized + passed, by_scale, None, None

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[int | None, ...],
        x: Tensor,
        scale: Tensor,
        restore: Restore,
        drop: float,
    ) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
        # Everything broadcasts from the right, so photos may lie in front.
        if in_dims[0] is not None:
            x = x.movedim(in_dims[0], 0)
        front = None if in_dims[0] is None else 0
        outputs = _StraightThrough.apply(x, scale, restore, drop)  # type: ignore[no-untyped-call]
        return outputs, (front, front, front, None if drop == 0 else front)
