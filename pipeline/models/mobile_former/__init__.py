"""Mobile-Former (Chen et al., CVPR 2022, arXiv 2108.05895), which timm does not have.

Importing this package registers its seven sizes with timm, as `mobile_former_26m` to
`mobile_former_508m`. Parameters are named as in the public checkpoints (AAboys/MobileFormer).
"""

from typing import Any

from pipeline.models import torchvision_compat  # noqa: F401  (must precede timm)

# isort: split
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model

from pipeline.models.mobile_former.model import MobileFormer
from pipeline.models.mobile_former.sizes import SIZES

_SETTINGS = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bilinear",
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
    "first_conv": "stem.0",
    "classifier": "classifier.classifier.1",
}

default_cfgs = generate_default_cfgs({f"mobile_former_{name}": _SETTINGS for name in SIZES})


def _register(name: str) -> None:
    def create(pretrained: bool = False, **settings: Any) -> MobileFormer:
        model: MobileFormer = build_model_with_cfg(
            MobileFormer, create.__name__, pretrained, size=SIZES[name], **settings
        )
        return model

    create.__name__ = f"mobile_former_{name}"
    register_model(create)


for _name in SIZES:
    _register(_name)
