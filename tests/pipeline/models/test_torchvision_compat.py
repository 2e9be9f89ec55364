"""timm must import, with whatever torchvision is installed."""

import subprocess
import sys

from pipeline.models import torchvision_compat


def test_timm_imports_in_a_fresh_process():
    code = "from pipeline.models import torchvision_compat; import timm, torchvision.ops"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_attention_is_not_fused():
    assert not torchvision_compat.timm.layers.use_fused_attn()


def test_nothing_is_declared_twice(monkeypatch):
    monkeypatch.setattr(torchvision_compat, "torchvision_binary_loads", lambda: True)
    assert torchvision_compat.declare_missing_operators() is None
