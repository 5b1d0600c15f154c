#!/bin/sh
# Label a clip and a long video with curl: sh examples/classify.sh 127.0.0.1:8000 CLIP VIDEO
set -eu
usage='is missing. Use: sh examples/classify.sh 127.0.0.1:8000 CLIP VIDEO'
server=${1:?$usage} clip=${2:?$usage} video=${3:?$usage}

# The form field `file`; --retry waits for the time that a busy service states.
curl --silent --show-error --fail-with-body --retry 3 -F "file=@$clip" "$server/v1/classify?top_k=1"
echo

# The same as the raw body of the request.
curl --silent --show-error --fail-with-body --data-binary "@$clip" -H 'Content-Type: video/mp4' "$server/v1/classify?top_k=1"
echo

# A line of JSON for each window, as soon as it is ready (-N), and the segments in the last line.
curl --silent --show-error --fail-with-body -N -F "file=@$video" "$server/v1/timeline?window_s=4&top_k=1"

# A problem document says what is wrong; its `code` does not change between versions.
code=$(curl --silent --show-error -F "file=@$0" -o /dev/null -w '%{http_code}' "$server/v1/classify")
echo "this script is not a video: status $code"
