"""Where there is no terminal, progress is one line per finished step."""

import re
import time

import pytest

from pipeline.cli.progress import Bars


def test_a_step_is_told_with_the_time_that_inner_steps_did_not_take(capsys):
    with Bars() as bars, bars.step("outer"), bars.step("inner"):
        time.sleep(0.3)
    inner, outer = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"inner +0\.[34] s", inner)
    assert re.fullmatch(r"outer +0\.0 s", outer)


def test_a_step_without_work_is_told_as_cached(capsys):
    with Bars() as bars, bars.step("quantize", total=3) as step:
        step.reuse()
    assert capsys.readouterr().err.split() == ["quantize", "cached"]


def test_a_failed_step_is_not_told(capsys):
    with pytest.raises(ZeroDivisionError), Bars() as bars, bars.step("quantize"):
        raise ZeroDivisionError
    assert capsys.readouterr().err == ""
