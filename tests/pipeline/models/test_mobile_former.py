"""Mobile-Former as timm models: sizes, names of the public checkpoints, the paper's modules."""

import pytest
import timm
import torch
from torch import nn

from pipeline.models import ModelSpec, load_model
from pipeline.models.mobile_former.attention import (
    DynamicReLU,
    GlobalBlock,
    GlobalToLocal,
    Hyper,
    LocalToGlobal,
)
from pipeline.models.mobile_former.blocks import ChannelShuffle

PARAMETERS = {  # published as 3.2, 3.5, 4.6, 7.6, 9.4, 11.4 and 14.0 million
    "mobile_former_26m": 3_232_788,
    "mobile_former_52m": 3_469_092,
    "mobile_former_96m": 4_585_252,
    "mobile_former_151m": 7_595_828,
    "mobile_former_214m": 9_425_920,
    "mobile_former_294m": 11_422_648,
    "mobile_former_508m": 13_976_976,
}

NAMES = """
stem.0.weight stem.1.running_mean tokens.weight
features.0.conv.0.weight features.0.conv.1.bias features.0.conv.4.weight features.0.conv.5.weight
features.1.conv1.0.weight features.1.conv2.1.running_var features.1.conv3.0.weight
features.1.hyper1.hyper.0.weight features.1.hyper2.hyper.2.bias
features.1.local_global.alpha.0.weight features.1.local_global.q.bias
features.1.local_global.proj.weight features.1.local_global.layer_norm.weight
features.1.global_block.q.weight features.1.global_block.channel_mlp.weight
features.1.global_block.layer_norm.bias features.1.global_block.ffn.0.weight
features.1.global_block.ffn.2.bias features.1.global_block.ffn_norm.weight
features.1.global_local.k.weight features.1.global_local.proj.bias
features.2.conv1.1.weight features.2.conv2.0.weight features.2.conv3.0.weight
features.2.conv4.1.bias features.2.hyper1.hyper.2.weight features.2.hyper3.hyper.0.weight
local_global.alpha.0.bias local_global.layer_norm.bias
classifier.conv.1.weight classifier.conv.2.running_mean classifier.fc.0.weight
classifier.fc.1.running_var classifier.classifier.1.weight
"""  # as in AAboys/MobileFormer


@pytest.fixture(scope="module")
def smallest() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("mobile_former_26m", num_classes=7).eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_number_of_parameters_is_the_published_one(name: str) -> None:
    with torch.device("meta"):
        module = timm.create_model(name)
    assert sum(p.numel() for p in module.parameters()) == PARAMETERS[name]


def test_logits_of_any_batch(smallest: nn.Module) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        logits = smallest(images)
        torch.testing.assert_close(logits[1:], smallest(images[1:]))
    assert logits.shape == (2, 7) and not torch.equal(logits[0], logits[1])


def test_names_are_those_of_public_checkpoints(smallest: nn.Module) -> None:
    state = smallest.state_dict()
    assert set(NAMES.split()) <= set(state)
    kinds = {name.split(".")[2] for name in state if name.startswith("features.")}
    convolutions = {"conv", "conv1", "conv2", "conv3", "conv4", "hyper1", "hyper2", "hyper3"}
    assert kinds == convolutions | {"local_global", "global_block", "global_local"}


def test_settings_are_those_of_the_paper() -> None:
    loaded = load_model(ModelSpec("mobile_former_26m", random_seed=0))
    settings = loaded.preprocessing
    assert (settings.input_size, settings.crop_pct, settings.interpolation) == (
        224,
        0.875,
        "bilinear",
    )
    assert settings.mean == pytest.approx((0.485, 0.456, 0.406))
    assert settings.std == pytest.approx((0.229, 0.224, 0.225))
    assert (loaded.num_classes, loaded.family) == (1000, "mobile_former")


def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """PyTorch's own, on `[B, N, C]`."""
    q, k, v = (x.unflatten(2, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    mixed = nn.functional.scaled_dot_product_attention(q, k, v)
    return mixed.transpose(1, 2).flatten(2)


def test_tokens_attend_to_the_raw_map_and_are_gated() -> None:
    bridge, x, z = LocalToGlobal(6, 8), torch.randn(1, 6, 4, 5), torch.randn(1, 3, 8)
    keys = x.flatten(2).transpose(1, 2)
    gate = 2 * nn.functional.relu6(bridge.alpha[0](z) + 3) / 6
    mixed = attention(bridge.q(z), keys, keys, 2) * gate
    expected = bridge.layer_norm(z + bridge.proj(mixed))
    torch.testing.assert_close(bridge(x, z), expected)


def test_tokens_attend_to_each_other_and_are_normalised_after_the_sums() -> None:
    former, z = GlobalBlock(8), torch.randn(1, 3, 8)
    y = former.layer_norm(z + former.channel_mlp(attention(former.q(z), z, z, 4)))
    expected = former.ffn_norm(y + former.ffn[2](nn.functional.gelu(former.ffn[0](y))))
    torch.testing.assert_close(former(z), expected)


def test_the_raw_map_attends_to_the_tokens() -> None:
    bridge, x, z = GlobalToLocal(6, 8), torch.randn(1, 6, 4, 5), torch.randn(1, 3, 8)
    mixed = attention(x.flatten(2).transpose(1, 2), bridge.k(z), bridge.proj(z), 2)
    torch.testing.assert_close(bridge(x, z), x + mixed.transpose(1, 2).reshape(x.shape))


def test_slopes_follow_the_first_token_alone() -> None:
    hyper, x, z = Hyper(8, 5), torch.randn(1, 5, 2, 2), torch.randn(1, 3, 8)
    h = nn.functional.relu6(hyper.hyper(z[:, 0]) + 3)[..., None, None] / 6
    first, second = 2 * h[:, :5], 2 * h[:, 5:] - 1
    expected = torch.maximum(first * x, second * x)
    torch.testing.assert_close(DynamicReLU()(x, hyper(z)), expected)


def test_a_shuffle_takes_channels_of_all_groups_in_turn() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert ChannelShuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
