#!/usr/bin/env python3
"""Every key of src/config.c's tables stands in conf/hookgate.yaml and conf/hookgate.schema.json, and
nothing else does; every metric that the code can render stands in deploy/prometheus/README.md."""
import json
import re
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
failed = False


def report(name, problems):
    global failed
    failed |= bool(problems)
    print(("not ok - " if problems else "ok - ") + name)
    for problem in sorted(problems):
        print("  # " + problem)


def tables(text):
    """{table: {key: name of the table bound below it, or None}}"""
    found = {}
    for name, body in re.findall(r"yaml_field (\w+)\[\] = \{(.*?)\n\};", text, re.S):
        rows = {}
        for line in re.findall(r'(?:\{|ADDRESS\(|SECTION\()\s*"(\w+)"(.*?)(?=\n\s+(?:\{|ADDRESS|SECTION)|$)', body, re.S):
            below = re.search(r"\b(\w+_fields)\b", line[1])
            rows[line[0]] = below.group(1) if below else None
        found[name] = rows
    return found


def paths(found, table, prefix=""):
    for key, below in found[table].items():
        yield prefix + key
        if below:
            yield from paths(found, below, f"{prefix}{key}.")


def documented(text):
    """Keys of the example, those behind a `# key:` of a commented example line included."""
    keys, stack = set(), []
    for line in text.split("\n"):
        match = re.match(r"( *)(?:# )?([a-z_]+):(?: |$)", line)
        if not match:
            continue
        indent = len(match.group(1))
        while stack and stack[-1][0] >= indent:
            stack.pop()
        stack.append((indent, match.group(2)))
        keys.add(".".join(key for _, key in stack))
    return keys


def schema_paths(schema, node, prefix=""):
    if "$ref" in node:
        name = node["$ref"].rsplit("/", 1)[-1]
        node = {**schema.get("$defs", schema.get("definitions", {})).get(name, {}), **node}
    for key, below in node.get("properties", {}).items():
        yield prefix + key
        yield from schema_paths(schema, below, f"{prefix}{key}.")


def check_config():
    found = tables((ROOT / "src/config.c").read_text())
    keys = set(paths(found, "config_fields"))
    report("the tables of src/config.c were read", [] if len(keys) > 30 else [f"{len(keys)} keys found"])
    # What stands below these is the user's own: librdkafka's settings, names of platforms.
    free = ("kafka.settings.", "platforms.enabled.")
    text = (ROOT / "conf/hookgate.yaml").read_text()
    example = {k for k in documented(text) if not k.startswith(free)}
    report("conf/hookgate.yaml has every key", [f"{key} is missing" for key in keys - example])
    given = set()

    def walk(node, prefix=""):
        for key, value in node.items():
            given.add(prefix + key)
            if isinstance(value, dict) and not (prefix + key + ".").startswith(free):
                walk(value, f"{prefix}{key}.")

    walk(yaml.safe_load(text))
    report("conf/hookgate.yaml has no other key", [f"{key} is in no table" for key in given - keys])
    path = ROOT / "conf/hookgate.schema.json"
    if not path.exists():
        report("conf/hookgate.schema.json exists", ["it does not"])
        return
    schema = json.loads(path.read_text())
    listed = {k for k in schema_paths(schema, schema) if not k.startswith(free)}
    report("conf/hookgate.schema.json has every key", [f"{key} is missing" for key in keys - listed])
    report("conf/hookgate.schema.json has no other key", [f"{key} is in no table" for key in listed - keys])


def check_metrics():
    code = "".join((ROOT / "src" / name).read_text() for name in ("metrics.c", "metrics_process.c", "metrics.def"))
    names = set(re.findall(r'"((?:hookgate|webhook|process)_[a-z_]+)"', code))
    report("metrics were found", [] if len(names) > 20 else [f"{len(names)}"])
    page = (ROOT / "deploy/prometheus/README.md").read_text()
    listed = set(re.findall(r"^\| `((?:hookgate|webhook|process)_[a-z_]+)", page, re.M))
    report("deploy/prometheus/README.md lists every metric", [f"{n} is missing" for n in names - listed])
    report("deploy/prometheus/README.md lists no other", [f"{n} is not rendered" for n in listed - names])
    rules = "".join(p.read_text() for p in (ROOT / "deploy/prometheus").glob("*.y*ml"))
    used = {re.sub(r"_(bucket|sum|count)$", "", n) for n in
            re.findall(r"\b((?:hookgate|webhook)_[a-z_]+[a-z])\b(?=[{\[\s)])", rules)}
    report("rules use only metrics that exist", [f"{n} is not rendered" for n in used - names])


def main():
    check_config()
    check_metrics()
    return failed


if __name__ == "__main__":
    sys.exit(main())
