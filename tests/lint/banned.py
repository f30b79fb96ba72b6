#!/usr/bin/env python3
"""Words that must not stand in the repository: functions that overflow or parse carelessly, plain
comparisons where secrets are compared, notes to self, and paths or hosts of one machine."""
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SELF = "tests/lint/banned.py"

FUNCTIONS = ("strcpy strcat strncpy strncat sprintf vsprintf gets strtok atoi atol atoll atof sscanf scanf"
             " fscanf vsscanf alloca tmpnam tempnam mktemp system rand srand asctime ctime gmtime localtime"
             " bcopy bzero").split()
# Where a plain comparison would tell a forger, by its duration, how much he has guessed.
SECRET_FILES = re.compile(r"src/(verify|secret|keyring|challenge|seal|message|edge_tls)\w*\.c")
NOTES = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
MACHINE = re.compile(r"/work/(main|shared|\.)|/home/\w|/root/|/tmp/b-|\b(pypi|npmjs|crates|golang)\.(org|com|io)\b"
                     r"|repo1?\.maven|deb\.debian\.org")

failed = False


def report(name, problems):
    global failed
    failed |= bool(problems)
    print(("not ok - " if problems else "ok - ") + name)
    for problem in problems:
        print("  # " + problem)


def tracked():
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, check=True,
                         capture_output=True, text=True).stdout.split("\n")
    return [name for name in out if name and (ROOT / name).is_file()]


def text_of(name):
    try:
        return (ROOT / name).read_text()
    except UnicodeDecodeError:
        return "" # a sample or a seed of bytes


def code_of(name):
    """Comments and literals blanked, line numbers kept."""
    token = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)
    return token.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text_of(name))


def find(names, pattern, read):
    for name in names:
        for number, line in enumerate(read(name).split("\n"), 1):
            for match in pattern.finditer(line):
                yield f"{name}:{number}: {match.group().strip()}"


def main():
    names = [name for name in tracked() if name != SELF and name != "LICENSE"]
    sources = [name for name in names if re.search(r"\.[ch]$", name)]
    secret_files = [name for name in sources if SECRET_FILES.fullmatch(name)]
    functions = re.compile(r"(?<![\w.>])(" + "|".join(FUNCTIONS) + r")\s*\(")
    report("no banned function", list(find(sources, functions, code_of)))
    report("there are files that handle secrets", [] if secret_files else ["none found: fix SECRET_FILES"])
    report("secrets are compared with CRYPTO_memcmp",
           list(find(secret_files, re.compile(r"(?<![\w.>])(memcmp|bcmp)\s*\("), code_of)))
    report("no notes to self", list(find(names, NOTES, text_of)))
    report("no path or host of one machine", list(find(names, MACHINE, text_of)))
    report("every source says its licence", [
        name for name in sources if "SPDX-License-Identifier: Apache-2.0" not in text_of(name)])
    return failed


if __name__ == "__main__":
    sys.exit(main())
