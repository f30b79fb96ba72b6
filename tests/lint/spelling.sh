#!/usr/bin/env bash
# codespell over all text of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Words that are right here: names of the C library, of fields, of senders' payloads.
ignore=nd,te,fo,ue,ser,crate,acknowledgement,acknowledgements
mapfile -t files < <(git ls-files -co --exclude-standard |
    grep -vE '^(LICENSE|platforms/.*/samples/|tests/fuzz/corpus/|tests/lint/spelling.sh)')
if out=$(codespell --ignore-words-list "$ignore" -- "${files[@]}" 2>&1); then
    echo "ok - codespell: ${#files[@]} files"
else
    echo "not ok - codespell"
    printf '  # %s\n' "${out//$'\n'/$'\n  # '}"
    exit 1
fi
