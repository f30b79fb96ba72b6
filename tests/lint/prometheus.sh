#!/usr/bin/env bash
# promtool's opinion of the example configuration and the alert rules, and the rules' own tests.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../deploy/prometheus"
bad=0
check() { # name, command …
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        echo "ok - $name"
    else
        echo "not ok - $name"
        printf '  # %s\n' "${out//$'\n'/$'\n  # '}"
        bad=1
    fi
}
check "prometheus.yml" promtool check config prometheus.yml
check "alerts.yml" promtool check rules alerts.yml
check "alerts.test.yml" promtool test rules alerts.test.yml
# An alert without a test is a guess.
mapfile -t alerts < <(sed -n 's/^ *- alert: //p' alerts.yml)
for alert in "${alerts[@]}"; do
    if [ "$(grep -c "alertname: $alert\b" alerts.test.yml)" -lt 2 ]; then
        echo "not ok - $alert is not tested both ways"
        bad=1
    fi
done
exit "$bad"
