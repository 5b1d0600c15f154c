#!/bin/sh
# Serve a network on an NVIDIA GPU: sh examples/gpu.sh CHECKPOINT FOLDER
#
# `make install` installs the CUDA build of onnxruntime where `nvidia-smi` works.
set -eu
usage='is missing. Use: sh examples/gpu.sh CHECKPOINT FOLDER'
checkpoint=${1:?$usage} folder=${2:?$usage}

# Half precision uses the tensor cores; the export compares it with PyTorch in float32.
blvnet export --checkpoint "$checkpoint" --precision fp16 --out "$folder" --name on-gpu

# Show whether the engine really uses the GPU, and how fast it is at several batch sizes.
blvnet doctor
blvnet bench "$folder/on-gpu"

# With `cuda` the start fails if there is no GPU; `auto` would use the processor. Requests that wait for the
# same model share a batch, whose best size the service measures at the start.
BLVNET_PROVIDER=cuda exec blvnet serve --models "$folder"
