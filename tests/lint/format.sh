#!/usr/bin/env bash
# Every C file is as clang-format leaves it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
mapfile -t files < <(git ls-files -co --exclude-standard 'src/*.[ch]' 'tests/*.[ch]')
if [ ${#files[@]} -lt 20 ]; then
    echo "not ok - clang-format: only ${#files[@]} files found"
    exit 1
fi
bad=0
for file in "${files[@]}"; do
    [ -e "$file" ] || continue
    if ! clang-format --dry-run -Werror "$file" >/dev/null 2>&1; then
        echo "not ok - format of $file (clang-format -i $file)"
        bad=1
    fi
done
[ "$bad" = 0 ] && echo "ok - clang-format: ${#files[@]} files"
exit "$bad"
