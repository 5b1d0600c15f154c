#!/bin/sh
# Starts Alertmanager with the receiver in ALERT_WEBHOOK, the address of a webhook. Without it, alerts appear only
# on Alertmanager's own page.
set -eu
here=$(dirname "$0")
config=${TMPDIR:-/tmp}/alertmanager.yml
if [ -n "${ALERT_WEBHOOK:-}" ]; then
  # Some characters of an address, such as & in a query, mean something to sed.
  address=$(printf '%s' "$ALERT_WEBHOOK" | sed 's/[&|\\]/\\&/g')
  sed "s|ALERT_WEBHOOK|$address|" "$here/alertmanager.yml" >"$config"
else
  echo "ALERT_WEBHOOK is not set: alerts are not sent to anyone" >&2
  sed '/webhook_configs:/,$d' "$here/alertmanager.yml" >"$config"
fi
exec alertmanager --config.file="$config" "$@"
