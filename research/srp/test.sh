#!/usr/bin/env bash
# BLEU of the test sentences, beam 5: CHECKPOINT=checkpoint.pt research/srp/test.sh [flags]
set -euo pipefail
# shellcheck source=research/srp/settings.sh
. "$(dirname "$0")/settings.sh"
# shellcheck disable=SC2086  # flags are several words
exec "$PYTHON" "$ROOT/research/srp/generate.py" "$DATA" --batch-size 128 --beam 5 \
  --remove-bpe --scoring sacrebleu --path "${CHECKPOINT:-$OUTPUT/tuned/checkpoint_last.pt}" "$@"
