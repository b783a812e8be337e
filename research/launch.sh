# Sourced by the launch scripts: goes to the root of the repository and reads the settings that they
# share. $launch is the command that starts a script, in a process for each GPU.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${DATA_DIR:?set it to the folder of the images, with train/ and val/}"
PRUNER=${PRUNER:-cap}             # cap fast_cap obs mfac gm gw
FAMILY=${FAMILY:-vit}             # vit convnext resnet resnet_d efficientnet
PROCESSES=${PROCESSES:-$(tr ',' '\n' <<< "${CUDA_VISIBLE_DEVICES:-0}" | wc -l)}

launch=(python)
if [ "$PROCESSES" -gt 1 ]; then
  launch=(torchrun --standalone --nproc-per-node="$PROCESSES")
fi
