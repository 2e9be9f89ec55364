"""The demo models in the repository are small, described, and know their digits."""

from pathlib import Path

import numpy as np
import pytest
import torch

import pipeline
from pipeline.data.digits import split_digits, write_digits
from pipeline.data.labels import label_photos
from pipeline.data.photos import open_photo
from pipeline.data.validation import validation_photos
from pipeline.models import ModelSpec, load_model

pytest.importorskip("sklearn", reason="the demo's digits need scikit-learn")

ASSETS = Path(pipeline.__file__).parent / "assets"


@pytest.fixture(scope="module")
def labelling(tmp_path_factory):
    """The demo's validation folder."""
    folder = tmp_path_factory.mktemp("digits")
    write_digits(folder)
    return label_photos(folder / "validation", 10)


@pytest.mark.parametrize("name", ["mobilevit_xxs", "efficientformerv2_s0"])
def test_demo_model_recognises_digits(name, labelling):
    checkpoint = ASSETS / f"{name}_digits.safetensors"
    assert checkpoint.stat().st_size < 8e6
    model = load_model(ModelSpec(name, checkpoint=checkpoint))
    assert model.labels == tuple("0123456789")
    assert model.preprocessing.input_size == 128
    photos = list(validation_photos(labelling, model.preprocessing, limit=50))
    pixels = torch.from_numpy(np.stack([photo.pixels for photo in photos])) / 255
    mean, std = (torch.tensor(v) for v in (model.preprocessing.mean, model.preprocessing.std))
    with torch.inference_mode():
        predicted = model.module(((pixels - mean) / std).permute(0, 3, 1, 2)).argmax(1)
    correct = sum(int(p) == photo.label for p, photo in zip(predicted, photos, strict=True))
    assert correct >= 46


def test_written_photos_are_those_that_training_was_judged_by(labelling):
    drawn = {photo.tobytes() for photo in split_digits().validation.photos()}
    assert {open_photo(file.path).tobytes() for file in labelling.files} == drawn
