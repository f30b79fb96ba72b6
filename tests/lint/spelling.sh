#!/usr/bin/env bash
# codespell over all text of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
# Misspelt on purpose, in tests of suggestions for misspelt words; pieces of base64.
ignore=adress,addresss,sise,fo,certificat,plattform,opague,timestmap,haeder,acount,arival
mapfile -t files < <(git ls-files -co --exclude-standard |
    grep -vE '^(LICENSE|platforms/.*/samples/|tests/fuzz/corpus/|tests/lint/spelling.sh)')
if out=$(codespell --ignore-words-list "$ignore" -- "${files[@]}" 2>&1); then
    echo "ok - codespell: ${#files[@]} files"
else
    echo "not ok - codespell"
    printf '  # %s\n' "${out//$'\n'/$'\n  # '}"
    exit 1
fi
