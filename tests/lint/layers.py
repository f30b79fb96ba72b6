#!/usr/bin/env python3
"""Who may include whom in src/: levels, fences of foreign headers, steps that don't know each other.

Levels point down or sideways: 4 main and commands, 3 what holds a delivery together, 2 steps and
statements, 1 services, 0 base. A file's level is that of its first word: edge_tls.c is `edge`.
"""
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SRC = ROOT / "src"

LEVELS = {
    4: "main command harden heap",
    3: "batch shipment search edge worker reload delivery record gather lane loader witness admin forge drain parking hold held unhold audit",
    2: "reseal upkeep route verify message candidates query freshness challenge extract store outbox migrate stuck limit lease ledger",
    1: "breaker log metrics json yaml config platform secret keyring seal loop pg conninfo session topics topic publisher reader"
       " sample answer client destination event tally directory listen sighting"
       " setup activation quota address bucket gate admission",
    0: "rfc3339 obj hash slice list clock inbound outcome problem codec exchange window thread",
}
LEVEL = {name: level for level, names in LEVELS.items() for name in names.split()}

# Foreign header -> the files that may see it, directly or through one of our headers.
FENCES = {
    r"h2o(/.*)?\.h": r"edge(_\w+)?\.[ch]",
    # conninfo.c reads connection strings for store.c and migrate.c.
    r"libpq-fe\.h": r"(outbox|stuck|pg|pg_column|store|unhold_sql|lease_store|migrate|loader|session|upkeep|witness|conninfo|audit|reseal|directory_rows)\.c"
                    r"|(pg(_column)?|directory_rows|session)\.h",
    r"librdkafka/.*": r"(publisher|topic|reader|topics(_check|_refusal)?)\.c|(publisher_parts|topics(_check|_refusal)?)\.h",
    r"yyjson\.h": r"json\.c|forge(_\w+)?\.c",
    r"yaml\.h": r"yaml_read\.c",
    # crypto.h is free: whoever holds a secret cleanses it and compares in constant time.
    r"openssl/(?!crypto\.h).*": r"(secret|keyring|verify|challenge|edge_tls|seal|event|client|destination)\.c|command/seal\.c",
}
STEPS = "route verify freshness challenge extract".split()
# challenge.h hands on the proof that verify gave; freshness.h has the one parser of timestamps.
STEP_EXCEPTIONS = {("challenge", "verify.h"), ("extract", "freshness.h")}

INCLUDE = re.compile(r'^\s*#\s*include\s+([<"])([^>"]+)[>"]', re.M)
failed = False


def report(name, problems):
    global failed
    failed |= bool(problems)
    print(("not ok - " if problems else "ok - ") + name)
    for problem in sorted(problems):
        print("  # " + problem)


def read():
    """{file: ([our headers], [foreign headers])}, names relative to src/."""
    files = {}
    for path in sorted(SRC.rglob("*.[ch]")):
        own, foreign = [], []
        for mark, target in INCLUDE.findall(path.read_text()):
            (own if mark == '"' else foreign).append(target)
        files[path.relative_to(SRC).as_posix()] = ([resolve(path, t) for t in own], foreign)
    return files


def resolve(path, target):
    beside = path.parent / target
    return (beside if beside.exists() else SRC / target).relative_to(SRC).as_posix()


def level(name):
    if name.startswith("command/"):
        return 4
    return LEVEL.get(Path(name).stem.split("_")[0])


def reached(files, start):
    """Foreign headers that `start` sees, with the way there."""
    todo, seen = [(start, start)], set()
    while todo:
        name, way = todo.pop()
        if name in seen or name not in files:
            continue
        seen.add(name)
        for foreign in files[name][1]:
            yield foreign, way
        todo += [(own, f"{way} -> {own}") for own in files[name][0]]


def check_levels(files):
    report("every file has a level", [
        f"src/{name}: add its first word to LEVELS in tests/lint/layers.py" for name in files if level(name) is None])
    words = {"command"} | {Path(name).stem.split("_")[0] for name in files}
    report("every word of LEVELS is some file's", sorted(set(LEVEL) - words))
    report("includes point to the same level or a lower one", [
        f"src/{name} (level {level(name)}) includes {own} (level {level(own)})"
        for name, (includes, _) in files.items() for own in includes
        if own.endswith(".h") and None not in (level(name), level(own)) and level(own) > level(name)])


def check_fences(files):
    for header, allowed in FENCES.items():
        report(f"fence of <{header}>", [
            f"src/{name}: sees <{foreign}> by {way}"
            for name in files if not re.fullmatch(allowed, name)
            for foreign, way in reached(files, name) if re.fullmatch(header, foreign)])


def check_steps(files):
    problems = []
    for name, (includes, _) in files.items():
        stem = Path(name).stem
        if stem not in STEPS or name.startswith("command/"):
            continue
        others = {f"{s}.h" for s in STEPS if s != stem} | {"delivery.h"}
        problems += [f"src/{name} includes {own}" for own in includes
                     if own in others and (stem, own) not in STEP_EXCEPTIONS]
    report("steps include neither each other nor delivery.h", problems)


def check_cycles(files):
    problems, done = [], set()

    def visit(name, way):
        if name in way:
            problems.append(" -> ".join(way[way.index(name):] + [name]))
        elif name in files and name not in done:
            for own in files[name][0]:
                visit(own, way + [name])
            done.add(name)

    for name in files:
        visit(name, [])
    report("no header includes itself by a detour", problems)
    report("every included header of ours exists", [
        f"src/{name} includes {own}" for name, (includes, _) in files.items() for own in includes
        if not (SRC / own).exists()])


def main():
    files = read()
    report("there is something to check", [] if len(files) > 20 else [f"{len(files)} files in src/"])
    check_levels(files)
    check_fences(files)
    check_steps(files)
    check_cycles(files)
    return failed


if __name__ == "__main__":
    sys.exit(main())
