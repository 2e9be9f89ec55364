#!/usr/bin/env bash
# The whole way on a small real model: quantize, build, validate, measure on this host and on an
# emulated ARM device. Needs no download of weights or data; takes a few minutes after set-up.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
MODEL=${1:-mobilevit_xxs} # or efficientformerv2_s0
"$PYTHON" -m pipeline.data.digits demo/digits
exec "$POCKETVIT" deploy "$MODEL" \
  --checkpoint "pipeline/assets/${MODEL}_digits.safetensors" \
  --calibration demo/digits/calibration --validation demo/digits/validation \
  --target android-arm64 --device host --device emulated:cortex-a76 \
  --out "demo/$MODEL" --work demo/work
