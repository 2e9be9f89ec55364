"""The three figures on logits."""

import numpy as np
import pytest

from pipeline.quant.evaluate import agreement, sqnr_db, top1

LOGITS = np.array([[3.0, 1.0], [0.0, 4.0], [2.0, 1.0]], dtype=np.float32)


def test_top1_is_the_share_of_hits() -> None:
    assert top1(LOGITS, np.array([0, 1, 1])) == pytest.approx(2 / 3)


def test_agreement_ignores_the_values() -> None:
    assert agreement(LOGITS, LOGITS * 7) == 1.0
    assert agreement(LOGITS, -LOGITS) == 0.0


def test_a_tenth_of_the_amplitude_as_noise_is_20_db() -> None:
    assert sqnr_db(LOGITS, LOGITS * 0.9) == pytest.approx(20, abs=1e-4)


def test_equal_logits_have_no_noise() -> None:
    assert sqnr_db(LOGITS, LOGITS) == float("inf")
