#!/bin/sh
# Make an int8 package of a network, which is smaller and faster on most processors: sh examples/int8.sh FOLDER
#
# Int8 needs videos: those of --calibration set the ranges of the activations, and the export is refused if the
# accuracy on --validation drops by more than --max-drop points. Use videos like those that the service will get.
set -eu
folder=${1:?is missing. Use: sh examples/int8.sh FOLDER}
here=$(cd "$(dirname "$0")/.." && pwd)

# Labelled videos for the bundled network: drawn motions.
blvnet synth "$folder/videos" --clips "${CLIPS:-1000}" --split train=0.5,test=0.5 --seed 7

# The accuracy gate: `--max-drop 0.5` (the default) needs about a thousand videos to be sure.
blvnet export --checkpoint "$here/service/demo_models/blvnet-tam-mini" --precision int8 \
  --calibration "$folder/videos/train" --validation "$folder/videos/test" --max-drop "${MAX_DROP:-0.5}" \
  --out "$folder/models" --name mini-int8

# Verify it, show the engine that runs it, and use it like any other package.
blvnet models --models "$folder/models"
blvnet classify "$here/examples/clip.mp4" --models "$folder/models"
