#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds conf/hookgate.schema.json against the program: both must take and refuse the same
configurations, as far as a schema can know. Usage: check_config_schema.py HOOKGATE
(or $HOOKGATE_BIN). Prints TAP."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]

BASE = {
    "listen": "{plain: '127.0.0.1:8080'}",
    "public_url": "https://hooks.example.com",
    "postgres": "{conninfo: host=db}",
    "kafka": "{brokers: 'k:9092'}",
    "platforms": "{directory: platforms}",
}



class Loader(yaml.SafeLoader):
    """Times stay texts, as in YAML 1.2, by which editors go."""


Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()}

# (good for the schema, good for the program, what differs from BASE: None takes a key out).
# Where the two differ, the rule is one that a schema can't say: a unit's range, a private address.
BOTH, NEITHER, PROGRAM_REFUSES = (True, True), (False, False), (True, False)
EXAMPLES = [
    (BOTH, {}),
    (BOTH, {"listen": "{https: '0.0.0.0:443', certificate: c, key: k}"}),
    (BOTH, {"listen": "{plain: '[::1]:80', body: 64KiB}"}),
    (BOTH, {"listen": "{plain: '127.0.0.1:80', body: 2048}"}),
    (BOTH, {"threads": "auto"}),
    (BOTH, {"threads": "64"}),
    (BOTH, {"deadlines": "{gather: 600ms, drain_delay: 0s}"}),
    (BOTH, {"kafka": "{brokers: 'a:1,b:2', topic: '{platform}.in', linger: 0s}"}),
    (BOTH, {"kafka": "{brokers: 'a:1', settings: {compression.codec: zstd, retries: 5}}"}),
    (BOTH, {"platforms": "{directory: p, enabled: {zoom: {secret_files: a}, otter: }}"}),
    (BOTH, {"platforms": "{directory: p, enabled: {zoom: {secret_files: [a, b], topic: t}}}"}),
    (BOTH, {"listen": "{plain: '127.0.0.1:80', trusted_proxies: [10.0.0.0/8, '2001:db8::/32', 192.0.2.1]}"}),
    (BOTH, {"listen": "{plain: '127.0.0.1:80', trusted_proxies: []}"}),
    (BOTH, {"limits": "{failed_signatures: 0}"}),
    (BOTH, {"limits": "{default: {minute: 0}, pro: {hour: 1000000000}}"}),
    (BOTH, {"platforms": "{directory: p, enabled: {zoom: {secret_files: [a, {file: b}]}}}"}),
    (BOTH, {"platforms": "{directory: p, enabled: {z: {secret_files: [{file: b, not_after: 2026-12-01T00:00:00Z}]}}}"}),
    (NEITHER, {"platforms": "{directory: p, enabled: {z: {secret_files: [{file: b, not_after: tomorrow}]}}}"}),
    (NEITHER, {"platforms": "{directory: p, enabled: {z: {secret_files: [{not_after: 2026-12-01T00:00:00Z}]}}}"}),
    (BOTH, {"log": "{level: warning}"}),
    (NEITHER, {"listen": None}),
    (NEITHER, {"listen": "{}"}),
    (NEITHER, {"listen": "{https: '0.0.0.0:443', key: k}"}),
    (NEITHER, {"listen": "{plain: 'localhost:80'}"}),
    (NEITHER, {"listen": "{plain: '127.0.0.1:80', body: 1KB}"}),
    (NEITHER, {"listen": "{plain: '127.0.0.1:80', body: 1023}"}),
    (NEITHER, {"listen": "{plain: '127.0.0.1:80', backlog: '9'}"}),
    (NEITHER, {"listen": "{plain: '127.0.0.1:80', adress: x}"}),
    (NEITHER, {"public_url": None}),
    (NEITHER, {"public_url": "https://x/"}),
    (NEITHER, {"public_url": "ftp://x"}),
    (NEITHER, {"threads": "0"}),
    (NEITHER, {"threads": "many"}),
    (NEITHER, {"deadlines": "{gather: 5}"}),
    (NEITHER, {"deadlines": "{gather: 1.5s}"}),
    (NEITHER, {"pipeline": "{batch: 0}"}),
    (NEITHER, {"pipeline": "{batch: [1]}"}),
    (NEITHER, {"postgres": "{conninfo: 'host=db password=x'}"}),
    (NEITHER, {"postgres": "{lanes: 1}"}),
    (NEITHER, {"postgres": "{conninfo: a, lanes: 5}"}),
    (NEITHER, {"kafka": "{brokers: 'a:1, b:2'}"}),
    (NEITHER, {"kafka": "{brokers: 'a:1', topic: 'a b'}"}),
    (NEITHER, {"kafka": "{brokers: 'a:1', create_topics: 1}"}),
    (NEITHER, {"kafka": "{brokers: 'a:1', settings: {acks: 1}}"}),
    (NEITHER, {"kafka": "{brokers: 'a:1', settings: {queue.buffering.max.kbytes: 1}}"}),
    (NEITHER, {"kafka": "{brokers: 'a:1', settings: {compression.type: lz4}}"}),
    (NEITHER, {"kafka": "{brokers: 'a:1', settings: [a]}"}),
    (NEITHER, {"platforms": "{}"}),
    (NEITHER, {"platforms": "{directory: p, enabled: {Zoom: {}}}"}),
    (NEITHER, {"platforms": "{directory: p, enabled: {zoom: {secrets: a}}}"}),
    (NEITHER, {"platforms": "{directory: p, enabled: {zoom: {secret_files: [1,2,3,4,5,6,7,8,9]}}}"}),
    (NEITHER, {"listen": "{plain: '127.0.0.1:80', trusted_proxies: [nginx]}"}),
    (PROGRAM_REFUSES, {"listen": "{plain: '127.0.0.1:80', trusted_proxies: [10.1.0.0/8]}"}),
    (NEITHER, {"limits": "{failed_signatures: -1}"}),
    (NEITHER, {"limits": "{default: {minute: -1}}"}),
    (NEITHER, {"limits": "{gold: {minute: 1}}"}),
    (NEITHER, {"log": "{level: loud}"}),
    (NEITHER, {"logs": "{level: info}"}),
    (PROGRAM_REFUSES, {"listen": "{plain: '0.0.0.0:80'}"}),
    (PROGRAM_REFUSES, {"deadlines": "{answer: 2s}"}),
    (PROGRAM_REFUSES, {"postgres": "{conninfo: a, dedup_window: 1h}"}),
]


def text_of(changes):
    keys = {**BASE, **changes}
    return "".join(f"{key}: {value}\n" for key, value in keys.items() if value is not None)


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HOOKGATE_BIN")
    if not binary:
        print("Bail out! usage: check_config_schema.py HOOKGATE")
        return 2
    schema = json.loads((ROOT / "conf/hookgate.schema.json").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    shipped = (ROOT / "conf/hookgate.yaml").read_text()
    cases = [("conf/hookgate.yaml", BOTH, shipped)]
    cases += [(str(changes) or "the base", want, text_of(changes)) for want, changes in EXAMPLES]
    failed = 0
    number = 0
    print(f"1..{2 * len(cases)}")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "c.yaml"
        for name, (schema_good, program_good), text in cases:
            path.write_text(text)
            run = subprocess.run([binary, "check", "--syntax", "--config", str(path)],
                                 capture_output=True, text=True, timeout=30, check=False)
            # Only 0 and 2 are answers; a crash is neither.
            results = (("schema", validator.is_valid(yaml.load(text, Loader)), schema_good),
                       ("program", {0: True, 2: False}.get(run.returncode), program_good))
            for judge, got, want in results:
                number += 1
                failed += got is not want
                print(f"{'ok' if got is want else 'not ok'} {number} - {judge} "
                      f"{'takes' if want else 'refuses'} {name}")
                if got is not want and judge == "program":
                    print("".join(f"# {line}\n" for line in run.stderr.splitlines()), end="")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
