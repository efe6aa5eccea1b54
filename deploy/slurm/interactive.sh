#!/bin/bash
# A server at your terminal, on a node of the cluster; Ctrl-C drains and ends it. Options of srun go before --:
#
#   ./interactive.sh --gres=gpu:1 --time=1:00:00 -- /models --log-verbose=1
#
set -euo pipefail

srun_options=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  srun_options+=("$1")
  shift
done
[ $# -ge 2 ] || { echo "usage: $0 [SRUN OPTIONS...] -- MODEL_REPOSITORY [FLAGS...]" >&2; exit 2; }
repository=$2
shift 2

# --unbuffered: the start table and the addresses appear as they come. --disable-status: the first Ctrl-C goes to the
# server; a second one within a second makes srun kill it.
exec srun --ntasks=1 --unbuffered --disable-status "${srun_options[@]}" \
  "${TRIREME:-trireme}" serve --model-repository="$repository" \
  --http-port=0 --grpc-port=0 --metrics-port=0 \
  --endpoint-file="${TRIREME_ENDPOINT_FILE:-$PWD/trireme.endpoint}" "$@"
