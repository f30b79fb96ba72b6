#!/usr/bin/env python3
"""No function over 80 lines, no file over 800. The house style puts a function's braces in the first
column and nobody else's, so that is how they are found; format.sh keeps it true."""
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_MAX, FILE_MAX = 80, 800


def functions(lines):
    """(line number, signature, lines between the braces, both included)"""
    begin = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            begin = number
        elif line == "}" and begin is not None:
            yield begin, lines[begin - 2].strip(), number - begin + 1
            begin = None


def main():
    out = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "src", "tests", "deploy"], cwd=ROOT,
                         check=True, capture_output=True, text=True).stdout.split()
    files, long_functions, long_files, count = 0, [], [], 0
    for name in out:
        path = ROOT / name
        if path.suffix not in (".c", ".h", ".py", ".sh") or not path.is_file():
            continue
        lines = path.read_text().split("\n")
        files += 1
        if len(lines) > FILE_MAX:
            long_files.append(f"{name}: {len(lines)} lines")
        if path.suffix == ".c":
            for number, signature, length in functions(lines):
                count += 1
                if length > FUNCTION_MAX:
                    long_functions.append(f"{name}:{number}: {length} lines: {signature}")
    results = [(f"no function over {FUNCTION_MAX} lines", long_functions),
               (f"no file over {FILE_MAX} lines", long_files),
               ("functions were found", [] if count > 100 else [f"{count} functions in {files} files"])]
    for name, problems in results:
        print(("not ok - " if problems else "ok - ") + name)
        for problem in problems:
            print("  # " + problem)
    return any(problems for _, problems in results)


if __name__ == "__main__":
    sys.exit(main())
