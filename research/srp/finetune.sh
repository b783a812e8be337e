#!/usr/bin/env bash
# Train on what is left: SHRUNK=checkpoint.pt research/srp/finetune.sh [flags]
set -euo pipefail
# shellcheck source=research/srp/settings.sh
. "$(dirname "$0")/settings.sh"
# shellcheck disable=SC2086  # flags are several words
exec "$PYTHON" "$ROOT/research/srp/finetuning.py" "$DATA" $COMMON --max-epoch "$EPOCHS" \
  --pretrained-model "${SHRUNK:-$OUTPUT/stage2/checkpoint_last.pt}" --save-dir "$OUTPUT/tuned" "$@"
