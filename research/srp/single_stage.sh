#!/usr/bin/env bash
# All units that go fade out together: DENSE=checkpoint.pt research/srp/single_stage.sh [flags]
set -euo pipefail
# shellcheck source=research/srp/settings.sh
. "$(dirname "$0")/settings.sh"
# shellcheck disable=SC2086  # flags are several words
exec "$PYTHON" "$ROOT/research/srp/pruning.py" "$DATA" $COMMON --srp --pretrained-model "$DENSE" \
  --compression-rate "$RATE" --pruning-stage 0 --pruning-period "$PERIOD" --decreasing sa \
  --weighted-layernorm --max-epoch "$PERIOD" --save-dir "$OUTPUT/single" "$@"
