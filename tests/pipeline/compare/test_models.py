"""What the user may write for the models of a comparison."""

from pathlib import Path

import pytest

from pipeline.compare.models import parse_models, subjects
from pipeline.data.source import PhotoList
from pipeline.errors import UserError

TOML = """
[[model]]
name = "mobilevit_xxs"
title = "ours"
checkpoint = "weights.safetensors"
num_classes = 10
calibration = "photos"

[[model]]
name = "deit_tiny_patch16_224"
mean = [0.5, 0.5, 0.5]
"""
CSV = """name,title,checkpoint,num_classes,mean,calibration
mobilevit_xxs,ours,weights.safetensors,10,,photos
deit_tiny_patch16_224,,,,0.5 0.5 0.5,
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Lists, weights and photos."""
    (tmp_path / "models.toml").write_text(TOML)
    (tmp_path / "models.csv").write_text(CSV)
    (tmp_path / "weights.safetensors").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "others").mkdir()
    (tmp_path / "list.txt").write_text("a.png")
    return tmp_path


def test_a_name_takes_the_common_options():
    (entry,) = parse_models(["vit"], {"pretrained": True, "limit": 5})
    assert (entry.name, entry.pretrained, entry.limit) == ("vit", True, 5)


def test_a_checkpoint_takes_the_place_of_common_weights():
    (entry,) = parse_models(["vit=w.pth"], {"pretrained": True, "num_classes": 7})
    assert (entry.checkpoint, entry.pretrained, entry.num_classes) == (Path("w.pth"), False, 7)


@pytest.mark.parametrize("name", ["models.toml", "models.csv"])
def test_a_list_gives_every_model_its_own_options(folder, name):
    common = {"calibration": folder / "others", "validation": folder / "others", "pretrained": True}
    ours, deit = subjects(parse_models([str(folder / name)], common))
    assert ours.title == "ours" and deit.title == "deit_tiny_patch16_224"
    assert ours.spec.checkpoint == folder / "weights.safetensors"
    assert (ours.spec.num_classes, ours.spec.pretrained) == (10, False)
    assert (ours.calibration, ours.validation) == (folder / "photos", folder / "others")
    assert deit.calibration == folder / "others"
    assert (deit.spec.pretrained, deit.spec.mean) == (True, (0.5, 0.5, 0.5))


def test_photos_may_be_lists_with_a_root(folder):
    common = {
        "calibration": folder / "list.txt",
        "validation": folder / "photos",
        "photos_root": folder / "photos",
    }
    (subject,) = subjects(parse_models(["vit"], common))
    assert subject.calibration == PhotoList(folder / "list.txt", folder / "photos")
    assert subject.validation == folder / "photos"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[[model]]\nname = "vit"\nclasses = 10', "unknown key 'classes'; allowed are name"),
        ('[[model]]\nname = "vit"\nnum_classes = "ten"', "num_classes = 'ten' is not allowed"),
        ("[[model]]\nnum_classes = 10", "name = .* is not allowed"),
        ("[[model]\n", "cannot be read"),
        ('name = "vit"', "has no model"),
    ],
)
def test_wrong_lists_are_one_sentence(tmp_path, content, message):
    (tmp_path / "list.toml").write_text(content)
    with pytest.raises(UserError, match=message):
        parse_models([str(tmp_path / "list.toml")], {})


def test_a_missing_list_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere.csv cannot be read"):
        parse_models([str(tmp_path / "nowhere.csv")], {})


def test_photos_and_weights_must_be_there(folder):
    photos = {"calibration": folder / "photos", "validation": folder / "photos"}
    cases = {
        "vit has no calibration photos": ("vit", {}),
        "validation photos .*nowhere of vit": ("vit", photos | {"validation": folder / "nowhere"}),
        "w.pth of vit does not exist": ("vit=w.pth", photos),
    }
    for message, (argument, common) in cases.items():
        with pytest.raises(UserError, match=message):
            subjects(parse_models([argument], common))


def test_models_of_one_title_are_refused(folder):
    common = {"calibration": folder / "photos", "validation": folder / "photos"}
    weights = folder / "weights.safetensors"
    with pytest.raises(UserError, match="called vit; give them titles"):
        subjects(parse_models([f"vit={weights}", "vit"], common))
