#!/usr/bin/env bash
# The files of sql/ are numbered from 001 without gaps, and the last one is what the program asks for: two
# branches that take the same number merge without a conflict.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
failed=0 number=0
for file in sql/*.sql; do
    number=$((number + 1))
    case $file in
        sql/$(printf %03d "$number")_*.sql) ;;
        *) echo "not ok - $file: $(printf %03d "$number") was expected here"; failed=1 ;;
    esac
done
[ "$failed" = 1 ] || echo "ok - $number files of sql/ are numbered without gaps"
if grep -q "^#define SCHEMA_VERSION $number\$" src/migrate.h; then
    echo "ok - SCHEMA_VERSION of src/migrate.h is $number"
else
    echo "not ok - SCHEMA_VERSION of src/migrate.h is not $number"
    failed=1
fi
exit "$failed"
