"""A rescaled network is the same network."""

from pathlib import Path

from pipeline.models import torchvision_compat  # noqa: F401  (must precede timm)

# isort: split
import timm
import torch

from pipeline.models.checkpoint import read_checkpoint
from scripts.benchmark.rescale import main, rescale

ASSETS = Path(__file__).parents[3] / "pipeline" / "assets"


def test_logits_stay_and_channels_differ_by_far_more() -> None:
    torch.manual_seed(0)
    model = timm.create_model("mobilevit_xxs", num_classes=10).eval()
    streams = {
        name: module
        for name, module in model.named_modules()
        if name.endswith(("conv3_1x1.bn", "norm1", "norm2"))
    }
    for module in streams.values():
        torch.nn.init.ones_(module.weight)  # timm begins some with zeros
    before = {name: module.weight.detach().abs().clone() for name, module in streams.items()}
    image = torch.rand(1, 3, 128, 128)
    with torch.no_grad():
        expected = model(image)
        rescale(model)
        found = model(image)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)
    ratios = {name: streams[name].weight.detach().abs() / before[name] for name in streams}
    changed = [r for r in ratios.values() if float(r.max() / r.min()) > 50]
    # all but the first bottleneck, which adds to an activation
    assert len(changed) == len(ratios) - 1


def test_a_checkpoint_keeps_what_it_says_of_photos(tmp_path: Path) -> None:
    source = ASSETS / "mobilevit_xxs_digits.safetensors"
    main("mobilevit_xxs", source, tmp_path / "rescaled.safetensors")
    found, expected = read_checkpoint(tmp_path / "rescaled.safetensors"), read_checkpoint(source)
    assert found.settings == expected.settings and expected.settings
