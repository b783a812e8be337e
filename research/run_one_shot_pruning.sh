#!/usr/bin/env bash
# Prune a pretrained model in one shot to several sparsities. Settings come from the environment,
# further flags from the command line:
#
#   DATA_DIR=/data/imagenet MODEL=deit_small_patch16_224 research/run_one_shot_pruning.sh --amp
#
# On several GPUs (CUDA_VISIBLE_DEVICES), one process each.
set -euo pipefail
# shellcheck source=research/launch.sh
. "$(dirname "$0")/launch.sh"

MODEL=${MODEL:-deit_small_patch16_224}
RECIPE=${RECIPE:-recipes/timm/one_shot/$PRUNER/$FAMILY.yaml}
SPARSITIES=${SPARSITIES:-0.4 0.5 0.6 0.7 0.75 0.8 0.9}
EXPERIMENT=${EXPERIMENT:-$MODEL-$PRUNER}

# shellcheck disable=SC2086  # several sparsities are several words
exec "${launch[@]}" research/one_shot_pruning.py \
  --model "$MODEL" \
  --data-dir "$DATA_DIR" \
  --sparseml-recipe "$RECIPE" \
  --experiment "$EXPERIMENT" \
  --timeout 18000 \
  -gb "${GS_BATCH_SIZE:-128}" \
  -vb "${VAL_BATCH_SIZE:-500}" \
  "$@" \
  --sparsities $SPARSITIES
