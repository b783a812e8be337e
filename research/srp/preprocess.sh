#!/usr/bin/env bash
# A corpus for SRP: two texts for each split, or tables, in TRAIN, VALID and TEST (see
# integrations/fairseq/prepare.py); 10,000 pairs of pieces are merged, with a vocabulary for each language.
set -euo pipefail
# shellcheck source=research/srp/settings.sh
. "$(dirname "$0")/settings.sh"
# shellcheck disable=SC2086  # flags are several words
exec "$PYTHON" "$ROOT/integrations/fairseq/prepare.py" "$DATA" --source-lang "${SOURCE:-de}" \
  --target-lang "${TARGET:-en}" --train $TRAIN --valid $VALID --test $TEST --bpe subword-nmt \
  --vocabulary "${VOCABULARY:-separate}" --vocab-size "${MERGES:-10000}" "$@"
