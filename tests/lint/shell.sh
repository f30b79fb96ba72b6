#!/usr/bin/env bash
# Runs shellcheck over every shell script, found by its first line.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
count=0 bad=0
while IFS= read -r file; do
    [ -f "$file" ] || continue
    IFS= read -r first <"$file" || true
    case $first in '#!'*bash* | '#!'*/sh*) ;; *) continue ;; esac
    count=$((count + 1))
    if ! out=$(shellcheck "$file"); then
        echo "not ok - shellcheck $file"
        printf '  # %s\n' "${out//$'\n'/$'\n  # '}"
        bad=1
    elif [ ! -x "$file" ]; then
        echo "not ok - $file is a script but not executable"
        bad=1
    fi
done < <(git ls-files -co --exclude-standard deploy tests .ci | tr -d '\000')
[ "$count" -ge 5 ] || { echo "not ok - shellcheck: only $count scripts found"; bad=1; }
[ "$bad" = 0 ] && echo "ok - shellcheck: $count scripts"
exit "$bad"
