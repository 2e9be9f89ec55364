#!/usr/bin/env bash
# Sets a fresh Debian or Ubuntu machine up: system packages, virtual environment, Python packages.
# Cheap when everything is there. Sourced by demo.sh and test.sh: leaves $PYTHON and $POCKETVIT set.
set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=${POCKETVIT_VENV:-$ROOT/.venv}

system_packages() {
  local -A commands=([gcc]=gcc [aarch64-linux-gnu-g++]=g++-aarch64-linux-gnu
    [qemu-aarch64]=qemu-user [llvm-mca]=llvm [python3]=python3-venv)
  local missing=() command
  for command in "${!commands[@]}"; do
    if [ "$command" = llvm-mca ]; then
      compgen -c llvm-mca | grep -E '^llvm-mca-(19|2[0-9])$' >/dev/null || missing+=(llvm)
    elif ! command -v "$command" >/dev/null; then
      missing+=("${commands[$command]}")
    fi
  done
  [ -f /usr/include/stdio.h ] || missing+=(libc6-dev)
  [ ${#missing[@]} -eq 0 ] && return
  local sudo=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
      echo "setup: please install as root: apt-get install ${missing[*]}" >&2
      exit 1
    }
    sudo=(sudo)
  fi
  echo "setup: installing ${missing[*]}"
  "${sudo[@]}" apt-get update -qq
  # the newest that there is, which only the lists just fetched tell
  local llvm=llvm-19
  apt-cache show llvm-22 >/dev/null 2>&1 && llvm=llvm-22
  missing=("${missing[@]/%llvm/$llvm}")
  DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq --no-install-recommends \
    "${missing[@]}" >/dev/null
}

python_packages() {
  local stamp
  stamp=$(sha256sum "$ROOT/pyproject.toml" | cut -d' ' -f1)
  if [ -f "$VENV/pocketvit.stamp" ] && [ "$(cat "$VENV/pocketvit.stamp")" = "$stamp" ]; then
    return
  fi
  echo "setup: installing Python packages into $VENV"
  [ -x "$VENV/bin/python" ] || python3 -m venv "$VENV"
  # torch first and alone: whatever needs torch must not choose another build of it
  "$VENV/bin/pip" install -q --disable-pip-version-check torch==2.13.0
  "$VENV/bin/pip" install -q --disable-pip-version-check -e "$ROOT[dev,demo]"
  echo "$stamp" >"$VENV/pocketvit.stamp"
}

system_packages
python_packages
export PYTHON=$VENV/bin/python POCKETVIT=$VENV/bin/pocketvit
