#!/usr/bin/env bash
# clang-tidy over src/ with the checks of .clang-tidy; any finding is a failure.
# Usage: tests/lint/tidy.sh [file.c …]     nothing = all of src/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=$PWD/.dev/test-build-tidy
mkdir -p .dev
# Set up anew each time: it takes a second or two, and the list of files is always the present one.
rm -rf "$build"
if ! CC=clang meson setup "$build" >"$build.log" 2>&1; then
    tail -n 20 "$build.log"
    echo "not ok - tidy: meson setup failed"
    exit 1
fi
if [ $# -gt 0 ]; then
    files=("$@")
else
    # What meson compiles: a file that is not built yet is nobody's finding.
    mapfile -t files < <(python3 - "$build/compile_commands.json" "$PWD/src/" <<'PYTHON'
import json, os, sys
commands, src = sys.argv[1:]
names = {os.path.realpath(os.path.join(c["directory"], c["file"])) for c in json.load(open(commands))}
print("\n".join(sorted(os.path.relpath(n) for n in names if n.startswith(os.path.realpath(src) + os.sep))))
PYTHON
    )
fi
[ ${#files[@]} -gt 0 ] || { echo "not ok - tidy: no files"; exit 1; }

check() {
    local out
    if out=$(clang-tidy --quiet -p "$1" "$2" 2>&1); then
        echo "ok - tidy $2"
    else
        echo "not ok - tidy $2"
        out=$(grep -E ': (error|warning): ' <<<"$out") # the way there is long: run it on the file alone
        printf '  # %s\n' "${out//$'\n'/$'\n  # '}"
        return 1
    fi
}
export -f check
# shellcheck disable=SC2016 # for the inner shell
printf '%s\0' "${files[@]}" | xargs -0 -P 2 -I{} bash -c 'check "$1" "$2"' _ "$build" {} || exit 1
