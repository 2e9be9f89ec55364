"""The model families that are known to work."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """Models of one kind.

    Attributes:
        name: of the family.
        example: timm's name of its smallest member.
        note: what is special about it.
    """

    name: str
    example: str
    note: str = ""


PROVEN = (
    Family("MobileViT", "mobilevit_xxs", "at input sizes that are multiples of 64, such as 256"),
    Family("MobileViTv2", "mobilevitv2_050", "likewise"),
    Family("EfficientFormer", "efficientformer_l1", "at 224 only"),
    Family("EfficientFormerV2", "efficientformerv2_s0", "at the size of its checkpoint"),
    Family("ViT and DeiT", "deit_tiny_patch16_224", "at the size of its checkpoint"),
    Family("Mobile-Former", "mobile_former_26m", "at any input size; built in, not from timm"),
    Family("Swin", "swin_tiny_patch4_window7_224", "at the size of its checkpoint"),
)
