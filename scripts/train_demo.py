"""Train the two demo models on scikit-learn's digits and store them as float16 checkpoints.

Each takes a few minutes on two cores: most epochs see 64x64 photos, the last ones 128x128. At the
final size every attention of both models has several tokens and MobileViT resizes no feature map.
"""

import json
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from pipeline.data.digits import CLASSES, Digits, split_digits
from pipeline.data.preprocess import to_pixels
from pipeline.data.preprocessing import Preprocessing
from pipeline.models import torchvision_compat  # noqa: F401  (must precede timm)

# isort: split
import timm

ASSETS = Path(__file__).parents[1] / "pipeline" / "assets"
BATCH = 64
PEAK_LEARNING_RATE = 2e-3
WARMUP_EPOCHS = 2
console = Console()


@dataclass(frozen=True)
class Demo:
    """A demo model: timm name, preprocessing, and (side in pixels, epochs) of each phase."""

    model: str
    preprocessing: Preprocessing
    phases: tuple[tuple[int, int], ...]

    def create(self, side: int) -> nn.Module:
        """Create the untrained network for side x side pixels."""
        # EfficientFormerV2's position bias tables depend on the size; MobileViT takes any size.
        sized: dict[str, Any] = (
            {"img_size": side} if self.model.startswith("efficientformerv2") else {}
        )
        return timm.create_model(self.model, num_classes=CLASSES, **sized)


DEMOS = (
    Demo(
        "mobilevit_xxs",
        Preprocessing(128, mean=(0, 0, 0), std=(1, 1, 1), interpolation="bicubic"),
        phases=((64, 24), (128, 6)),
    ),
    Demo(
        "efficientformerv2_s0",
        Preprocessing(128, interpolation="bicubic"),
        phases=((64, 16), (128, 9)),
    ),
)


def batch_of(photos: np.ndarray, preprocessing: Preprocessing) -> Tensor:
    """Turn uint8 `[N, H, W, 3]` photos into normalised float32 `[N, 3, side, side]`."""
    pixels = np.stack([to_pixels(Image.fromarray(photo), preprocessing) for photo in photos])
    mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
    return ((torch.from_numpy(pixels) / 255 - mean) / std).permute(0, 3, 1, 2)


def augmented(images: Tensor) -> Tensor:
    """Rotate by up to 15 degrees, scale by 0.85 to 1.15 and shift by up to 8 %, each at random."""
    count = len(images)
    angle = (torch.rand(count) - 0.5) * math.radians(30)
    scale = 1 + (torch.rand(count) - 0.5) * 0.3
    shift = (torch.rand(count, 2) - 0.5) * 0.32  # a side is 2 units long
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rows = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1)
    grid = F.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def batches(digits: Digits, epoch: int, preprocessing: Preprocessing) -> Iterator[list[Tensor]]:
    """Yield shuffled, freshly coloured and augmented `(images, labels)` batches of one epoch."""
    images = batch_of(digits.photos(version=epoch), preprocessing)
    labels = torch.from_numpy(digits.labels)
    for chosen in torch.randperm(len(labels)).split(BATCH):
        if len(chosen) > 1:  # batch normalisation needs two
            yield [augmented(images[chosen]), labels[chosen]]


def train(demo: Demo, digits: Digits) -> nn.Module:
    """Train through all phases with one cosine of the learning rate; print the loss per epoch."""
    torch.manual_seed(0)
    sides = [side for side, epochs in demo.phases for _ in range(epochs)]
    steps_per_epoch = math.ceil(len(digits.labels) / BATCH)
    network = demo.create(sides[0])
    for epoch, side in enumerate(sides):
        if epoch == 0 or side != sides[epoch - 1]:
            network = resized(network, demo.create(side)).train()
            optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
        preprocessing = replace(demo.preprocessing, input_size=side)
        losses = []
        for batch, (images, labels) in enumerate(batches(digits, epoch, preprocessing)):
            progress = epoch + batch / steps_per_epoch
            rate = min(progress / WARMUP_EPOCHS, math.cos(progress / len(sides) * math.pi / 2))
            optimizer.param_groups[0]["lr"] = PEAK_LEARNING_RATE * rate
            logits = network(images.contiguous(memory_format=torch.channels_last))
            loss = F.cross_entropy(logits, labels, label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimizer.step()
            losses.append(loss.item())
        console.log(f"{demo.model} {side}x{side} epoch {epoch}: loss {np.mean(losses):.3f}")
    return network


def resized(trained: nn.Module, network: nn.Module) -> nn.Module:
    """Copy to a network of another input size every weight that has the same shape there."""
    own = network.state_dict()
    fitting = {name: w for name, w in trained.state_dict().items() if w.shape == own[name].shape}
    network.load_state_dict(own | fitting)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@torch.inference_mode()
def accuracy(network: nn.Module, digits: Digits, preprocessing: Preprocessing) -> float:
    """Return the share of digits that the network classifies correctly, in [0, 1]."""
    network.eval()
    images = batch_of(digits.photos(), preprocessing).split(BATCH)
    predicted = torch.cat([network(chunk).argmax(1) for chunk in images])
    return float((predicted == torch.from_numpy(digits.labels)).double().mean())


def store(network: nn.Module, preprocessing: Preprocessing, path: Path) -> None:
    """Write the weights in float16, with preprocessing and class names as JSON metadata."""
    described = preprocessing.to_dict() | {"labels": [str(digit) for digit in range(CLASSES)]}
    metadata = {f"pocketvit.{key}": json.dumps(value) for key, value in described.items()}
    state = network.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: w.half().contiguous() if w.is_floating_point() else w for name, w in state.items()},
        path,
        metadata,
    )


def main(
    only: Annotated[str | None, typer.Option(help="Train this model alone.")] = None,
    folder: Annotated[Path, typer.Option(help="Where the checkpoints go.")] = ASSETS,
) -> None:
    """Train the demo models, store them, and print the accuracy of what was stored."""
    split = split_digits()
    for demo in DEMOS:
        if only not in (None, demo.model):
            continue
        start = time.monotonic()
        path = folder / f"{demo.model}_digits.safetensors"
        network = train(demo, split.train)
        trained = accuracy(network, split.validation, demo.preprocessing)
        store(network, demo.preprocessing, path)
        network.load_state_dict(load_file(path))
        stored = accuracy(network, split.validation, demo.preprocessing)
        console.print(
            f"{demo.model}: validation {trained:.2%}, as float16 {stored:.2%}, "
            f"{path.stat().st_size / 1e6:.2f} MB, {time.monotonic() - start:.0f} s"
        )


if __name__ == "__main__":
    typer.run(main)
