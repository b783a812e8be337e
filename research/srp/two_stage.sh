#!/usr/bin/env bash
# First the streams get narrower, then heads and feed-forward layers, in two runs:
# DENSE=checkpoint.pt research/srp/two_stage.sh [flags]
set -euo pipefail
# shellcheck source=research/srp/settings.sh
. "$(dirname "$0")/settings.sh"
# shellcheck disable=SC2086  # flags are several words
for stage in 1 2; do
  "$PYTHON" "$ROOT/research/srp/pruning.py" "$DATA" $COMMON --srp --pretrained-model "$DENSE" \
    --compression-rate "$RATE" --pruning-stage $stage --pruning-period "$PERIOD" --decreasing sa \
    --weighted-layernorm --max-epoch "$PERIOD" --save-dir "$OUTPUT/stage$stage" "$@"
  DENSE=$OUTPUT/stage$stage/checkpoint_last.pt
done
