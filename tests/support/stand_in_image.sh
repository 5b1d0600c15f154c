#!/usr/bin/env bash
# Makes a stand-in for a base image from Debian packages, so that the project's Dockerfile and compose file can be built
# and started when no registry can be reached.
#
#   stand_in_image.sh python|monitoring|proxy IMAGE      IMAGE is a name of localhost/, never the real one's
#
# Needs root, mmdebstrap and podman, and Debian's package archive.
set -euo pipefail

case $1 in
  python) packages=ca-certificates,python3,python3-pip,python3-venv change='CMD ["python3"]' ;;
  proxy) packages=haproxy,redis-server change='CMD ["haproxy"]' ;;
  monitoring) packages=prometheus,prometheus-alertmanager change='ENTRYPOINT ["/usr/bin/prometheus"]' ;;
  *) echo "no recipe for $1" >&2; exit 2 ;;
esac
root=$(mktemp --suffix=.tar)
trap 'rm -f "$root"' EXIT
mmdebstrap --mode=root --variant=minbase --include="$packages" \
  --customize-hook='if [ -e "$1/usr/bin/prometheus-alertmanager" ]; then ln -s prometheus-alertmanager "$1/usr/bin/alertmanager"; fi' \
  bookworm "$root"
podman import --quiet --change "$change" "$root" "$2"
