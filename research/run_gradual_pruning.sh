#!/usr/bin/env bash
# Prune a pretrained model gradually while it trains on. Settings come from the environment,
# further flags from the command line:
#
#   DATA_DIR=/data/imagenet MODEL=deit_tiny_patch16_224 research/run_gradual_pruning.sh --model-ema
#
# On several GPUs (CUDA_VISIBLE_DEVICES), one process each. A run that was stopped goes on with
#   ... research/run_gradual_pruning.sh --resume output/train/$EXPERIMENT
set -euo pipefail
# shellcheck source=research/launch.sh
. "$(dirname "$0")/launch.sh"

MODEL=${MODEL:-deit_tiny_patch16_224}
CONFIG=${CONFIG:-configs/light1.yaml}
RECIPE=${RECIPE:-recipes/timm/gradual/$PRUNER/$FAMILY.yaml}
EXPERIMENT=${EXPERIMENT:-$MODEL-gradual-$PRUNER}

exec "${launch[@]}" research/sparse_training.py \
  --config "$CONFIG" \
  --model "$MODEL" \
  --data-dir "$DATA_DIR" \
  --sparseml-recipe "$RECIPE" \
  --recipe-args "${RECIPE_ARGS:-{\}}" \
  --experiment "$EXPERIMENT" \
  --workers "${WORKERS:-16}" \
  --timeout 18000 \
  --amp \
  -gb "${GS_BATCH_SIZE:-128}" \
  -vb "${VAL_BATCH_SIZE:-500}" \
  "$@"
