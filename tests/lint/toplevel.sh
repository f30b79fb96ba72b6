#!/usr/bin/env bash
# The top level holds what README.md says and nothing else but dot-files.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
bad=0
while IFS= read -r name; do
    case $name in
    # Meson before 1.1 reads only the name with the underscore.
    .* | meson.build | meson.options | meson_options.txt | README.md | LICENSE) ;;
    src | platforms | conf | sql | tests | deploy) ;;
    *) echo "not ok - top level: $name does not belong there" && bad=1 ;;
    esac
done < <(git ls-files -co --exclude-standard | cut -d/ -f1 | sort -u)
for name in meson.build README.md LICENSE src platforms conf sql tests deploy; do
    [ -e "$name" ] || { echo "not ok - top level: $name is missing" && bad=1; }
done
[ "$bad" = 0 ] && echo "ok - top level"
exit "$bad"
