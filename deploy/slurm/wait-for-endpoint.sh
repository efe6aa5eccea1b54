#!/bin/bash
# Waits until a server is ready and prints its HTTP address; ends with 1 if it is not within the time.
#
#   url=$(./wait-for-endpoint.sh trireme-123.endpoint 600)
#
set -euo pipefail

file=${1:?usage: wait-for-endpoint.sh ENDPOINT_FILE [SECONDS]}
seconds=${2:-600}
until [ -s "$file" ]; do
  if [ "$SECONDS" -ge "$seconds" ]; then
    echo "no server within $seconds s: $file is not there" >&2
    exit 1
  fi
  sleep 0.5
done
sed -n 's/^http=//p' "$file"
