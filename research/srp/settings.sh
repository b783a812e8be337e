# What the scripts of this folder share; sourced by them. All of it may be set in the environment.
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
PYTHON=${PYTHON:-python}
DATA=${DATA:-$ROOT/data/iwslt}       # of preprocess.sh
OUTPUT=${OUTPUT:-$ROOT/output/srp}
RATE=${RATE:-0.2}                    # share of the parameters to keep
PERIOD=${PERIOD:-20}                 # epochs in which units fade out
EPOCHS=${EPOCHS:-20}                 # of fine-tuning
MODEL=${MODEL:---arch srp_iwslt_de_en --share-decoder-input-output-embed --dropout 0.3}
TRAINING=${TRAINING:---lr 5e-4 --lr-scheduler fixed --weight-decay 1e-4 --max-tokens 4096}
COMMON="--task SRPtranslation --criterion srp --label-smoothing 0.1 --optimizer srp_adam
  --adam-betas (0.9,0.98) --clip-norm 0.0 --no-epoch-checkpoints $MODEL $TRAINING"
