#!/usr/bin/env bash
# All checks: formatting, types, tests. Sets the machine up first.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/setup.sh
"$PYTHON" -m ruff check .
"$PYTHON" -m ruff format --check .
"$PYTHON" -m mypy
"$PYTHON" scripts/readme_tables.py --check
OMP_NUM_THREADS=1 "$PYTHON" -m pytest -n 2 --dist worksteal "$@"
