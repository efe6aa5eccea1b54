#!/usr/bin/env bash
# A real tritonserver (2.51.0) without a GPU or a container, out of a Python wheel, plus a small native backend for it.
# Usage: install.sh DIR      about 60 MB of downloads; afterwards DIR/tritonserver/{bin/tritonserver,backends/bench/}
set -euo pipefail
DIR=$(realpath -m "${1:?folder to install into}")
HERE=$(cd "$(dirname "$0")" && pwd)
WHEEL=nvidia-pytriton==0.7.0
SHA256=21f063ff93bb426d0c06b7a55e7eb9efcfe62c0dddd9a908e9877e18710128df

if [ ! -x "$DIR/tritonserver/bin/tritonserver" ]; then
  mkdir -p "$DIR"
  SCRATCH=$(mktemp -d "$DIR/.installing-XXXXXX")
  trap 'rm -rf "$SCRATCH"' EXIT
  echo "$WHEEL --hash=sha256:$SHA256" >"$SCRATCH/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir --require-hashes \
    --dest "$SCRATCH" --requirement "$SCRATCH/requirements.txt"
  python3 -m zipfile -e "$SCRATCH"/*.whl "$SCRATCH/unpacked"
  chmod +x "$SCRATCH/unpacked/pytriton/tritonserver/bin/tritonserver"
  # The server finds its libraries by their place beside it, so both folders move together.
  rm -rf "$DIR/wheel"
  mv "$SCRATCH/unpacked" "$DIR/wheel"
  ln -sfn wheel/pytriton/tritonserver "$DIR/tritonserver"
fi
mkdir -p "$DIR/tritonserver/backends/bench"
cc -O2 -Wall -fPIC -shared -fvisibility=hidden \
  -o "$DIR/tritonserver/backends/bench/libtriton_bench.so" "$HERE/bench_backend.c"
