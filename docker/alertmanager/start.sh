#!/bin/sh
# Starts Alertmanager with the receiver in ALERT_WEBHOOK, the address of a webhook. Without it, alerts appear only
# on Alertmanager's own page.
set -eu
here=$(dirname "$0")
config=${TMPDIR:-/tmp}/alertmanager.yml
if [ -n "${ALERT_WEBHOOK:-}" ]; then
  sed "s|ALERT_WEBHOOK|$ALERT_WEBHOOK|" "$here/alertmanager.yml" >"$config"
else
  echo "ALERT_WEBHOOK is not set: alerts are not sent to anyone" >&2
  sed '/webhook_configs:/,$d' "$here/alertmanager.yml" >"$config"
fi
exec alertmanager --config.file="$config" "$@"
