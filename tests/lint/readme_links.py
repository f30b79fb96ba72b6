#!/usr/bin/env python3
"""Relative links of every Markdown page point to files that exist, and to headings that exist."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def prose(path):
    return re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.S)


def anchors(path):
    headings = re.findall(r"^#+ +(.*?) *$", re.sub(r"```.*?```", "", path.read_text(), flags=re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


def problems(name):
    page = ROOT / name
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        path = (page.parent / target).resolve() if target else page
        if not path.exists():
            yield f"{name}: {link}: there is no such file"
        elif anchor and path.suffix == ".md" and anchor not in anchors(path):
            yield f"{name}: {link}: there is no such heading"


def main():
    pages = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=ROOT, check=True,
                           capture_output=True, text=True).stdout.split()
    found = [p for page in pages if (ROOT / page).exists() for p in problems(page)]
    found += [] if "README.md" in pages else ["there is no README.md"]
    print(("not ok" if found else "ok") + f" - links of {len(pages)} pages")
    for problem in found:
        print("  # " + problem)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
