#!/usr/bin/env bash
# gcc -fanalyzer over src/; any finding is a failure, but for the false alarms below.
# Usage: tests/lint/analyzer.sh [file.c …]     nothing = all of src/
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
build=$PWD/.dev/test-build-analyzer

# False alarms, one a line: file, warning, why. The leaks are memory that is reached from its owner through a second pointer, which
# gcc 12 loses sight of; the tests that run the same code are clean under LeakSanitizer. A line that silences nothing is a failure.
silenced='
src/yaml.c       malloc-leak  blocks and nodes hang on the document and go with yaml_free()
src/reload.c     null-dereference  there is no setup exactly when there is a problem, and then nothing goes on with it
src/platform_value.c  null-dereference  an id has no parts exactly when it counts none
src/migrate.c    malloc-leak  the files hang on struct migrate and go at the end of migrate_run()
'

configure() {
    [ "$build/build.ninja" -nt meson.build ] && return
    rm -rf "$build"
    mkdir -p .dev
    CC=gcc meson setup "$build" -Dtests=false -Dwerror=false >"$build.log" 2>&1 && return
    tail -n 20 "$build.log"
    echo "not ok - analyzer: meson setup failed"
    exit 1
}

# Leaves the findings beside the build; what has not changed since the last time is not looked at again.
# shellcheck disable=SC2317 # xargs calls it
analyze() { # file, its command
    local log=$build/${1//\//_}.analyzer
    if [ -e "$log" ] && [ "$log" -nt "$1" ] && [ -z "$(find src tests/lint/analyzer.sh \( -name '*.h' -o -name '*.def' -o -name '*.sh' \) -newer "$log" -print -quit)" ]; then
        return
    fi
    (cd "$build" && eval "$2 -fanalyzer -fdiagnostics-color=never -o /dev/null") >"$log.new" 2>&1 || echo "$1: error: gcc failed" >>"$log.new"
    mv "$log.new" "$log"
}
export -f analyze
export build

configure
python3 - "$build" "$PWD" "$@" <<'PYTHON' >"$build/commands"
import json, os, re, sys
build, root, *wanted = sys.argv[1:]
for entry in json.load(open(build + "/compile_commands.json")):
    name = os.path.relpath(os.path.join(entry["directory"], entry["file"]), root)
    if name.startswith("src/") and (not wanted or name in wanted):
        command = re.sub(r" (-MD|-M[QF] \S+|-o \S+)(?= )", "", entry["command"])
        sys.stdout.write(f"{name}\0{command}\0")
PYTHON
# shellcheck disable=SC2016 # for the inner shell
xargs -0 -n 2 -P "$(nproc)" bash -c 'analyze "$1" "$2"' _ <"$build/commands"

bad=0 count=0
while IFS= read -r -d '' file && IFS= read -r -d '' _; do
    count=$((count + 1))
    found=$(grep -E '(warning|error):' "$build/${file//\//_}.analyzer" || true)
    while read -r name warning why; do
        [ "$name" = "$file" ] || continue
        if grep -q "Wanalyzer-$warning\]" <<<"$found"; then
            found=$(grep -v "Wanalyzer-$warning\]" <<<"$found" || true)
        else
            echo "not ok - analyzer: $file no longer needs its silenced $warning ($why)"
            bad=1
        fi
    done <<<"$silenced"
    if [ -n "$found" ]; then
        echo "not ok - analyzer $file"
        printf '  # %s\n' "${found//$'\n'/$'\n  # '}"
        bad=1
    fi
done <"$build/commands"
[ "$count" -gt 0 ] || { echo "not ok - analyzer: no files"; exit 1; }
[ "$bad" = 0 ] && echo "ok - gcc -fanalyzer: $count files"
exit "$bad"
