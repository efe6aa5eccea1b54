#!/usr/bin/env bash
# NVIDIA's load generators: perf_analyzer 2.51 (out of tritonclient's wheel) and aiperf.
# Usage: install.sh DIR      about 300 MB of downloads, 1.3 GB on disk; afterwards DIR/perf_analyzer and DIR/aiperf
# For x86-64 Linux. perf_analyzer needs libb64.so.0d: Debian's package, which is unpacked in DIR unless it is installed.
set -euo pipefail
DIR=$(realpath -m "${1:?folder to install into}")
mkdir -p "$DIR"

fetch() { # NAME==VERSION SHA256: the wheel's files, in DIR/NAME
  local name=${1%%==*} scratch
  [ ! -d "$DIR/$name" ] || return 0
  scratch=$(mktemp -d "$DIR/.installing-XXXXXX")
  echo "$1 --hash=sha256:$2" >"$scratch/requirements.txt"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --no-cache-dir --require-hashes --only-binary=:all: \
    --platform manylinux1_x86_64 --platform manylinux2014_x86_64 --dest "$scratch" --requirement "$scratch/requirements.txt"
  python3 -m zipfile -e "$scratch"/*.whl "$scratch/unpacked"
  mv "$scratch/unpacked" "$DIR/$name"
  rm -r "$scratch"
}

if [ ! -x "$DIR/perf_analyzer" ]; then
  fetch tritonclient==2.51.0 c485bb0123bdf310f90bc8b03d3489b28df2ffed55b30c7eee0b795b48113d52
  fetch nvidia-cuda-runtime-cu12==12.9.79 25bba2dfb01d48a9b59ca474a1ac43c6ebf7011f1b0b8cc44f54eb6ac48a96c3
  # It wants the library of CUDA's runtime to begin, and no driver.
  LIBRARIES=$(dirname "$(find "$DIR/nvidia-cuda-runtime-cu12" -name libcudart.so.12)")
  if ! ldconfig -p | grep -q 'libb64\.so\.0d'; then
    mkdir -p "$DIR/libb64"
    (cd "$DIR/libb64" && apt-get download -qq libb64-0d && dpkg -x libb64-0d_*.deb .)
    LIBRARIES=$LIBRARIES:$(dirname "$(find "$DIR/libb64" -name 'libb64.so.0d')")
  fi
  PROGRAM=$(find "$DIR/tritonclient" -name perf_analyzer -type f)
  chmod +x "$PROGRAM"
  printf '#!/bin/sh\nLD_LIBRARY_PATH=%s exec %s "$@"\n' "$LIBRARIES" "$PROGRAM" >"$DIR/.perf_analyzer"
  chmod +x "$DIR/.perf_analyzer"
  mv "$DIR/.perf_analyzer" "$DIR/perf_analyzer"
fi

if [ ! -x "$DIR/aiperf" ]; then
  # Without its own pip, because Debian ships that in a package apart; the machine's pip installs into it.
  python3 -m venv --clear --without-pip "$DIR/venv"
  python3 -m pip --python "$DIR/venv/bin/python3" install --quiet --disable-pip-version-check --no-input aiperf==0.13.0
  ln -sfn venv/bin/aiperf "$DIR/aiperf"
fi
