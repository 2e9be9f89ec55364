"""The float networks that are compared: timm's with random weights, and one of two convolutions."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.data.preprocessing import Preprocessing
from pipeline.models import ModelSpec, load_model

SEED = 0
DEFAULT_NETWORKS = (
    "mobilevit_xxs",
    "mobilevitv2_050",
    "efficientformerv2_s0",
    "efficientformer_l1",
    "deit_tiny_patch16_224",
)
CONV_NET = "conv_net"


@dataclass(frozen=True)
class Network:
    """A float network.

    Attributes:
        name: timm's, or `CONV_NET`.
        module: takes float32 of this `shape`, NCHW.
        shape: of its input, batch 1.
        preprocessing: of photos; None where it takes something else.
    """

    name: str
    module: nn.Module
    shape: tuple[int, int, int, int]
    preprocessing: Preprocessing | None


class ConvNet(nn.Module):
    """conv3x3 16 to 32, ReLU, conv1x1 32 to 64, ReLU, on 56x56 pixels: 20.9 MMAC."""

    def __init__(self) -> None:
        """With random weights."""
        super().__init__()
        self.spatial = nn.Conv2d(16, 32, 3, padding=1)
        self.pointwise = nn.Conv2d(32, 64, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``[1, 16, 56, 56]`` to ``[1, 64, 56, 56]``."""
        return torch.relu(self.pointwise(torch.relu(self.spatial(x))))


def load_network(name: str, fused_attention: bool = False) -> Network:
    """A network with random weights, always the same ones.

    Args:
        name: see `Network`.
        fused_attention: whether attention is one operator, which is fastest in torch itself.

    Raises:
        UserError: timm has no such model.
    """
    if name == CONV_NET:
        torch.manual_seed(SEED)
        module = ConvNet().eval().requires_grad_(False)
        return Network(name, module, (1, 16, 56, 56), None)
    import timm.layers

    timm.layers.set_fused_attn(fused_attention)
    loaded = load_model(ModelSpec(name, random_seed=SEED))
    size = loaded.preprocessing.input_size
    return Network(name, loaded.module, (1, 3, size, size), loaded.preprocessing)


def count_macs(network: Network) -> int:
    """Multiply-accumulates of all products and convolutions of one inference."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.module(torch.zeros(network.shape))
    return int(counter.get_total_flops()) // 2
