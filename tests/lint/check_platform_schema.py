#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Holds platforms/platform.schema.json and platforms/README.md against the program: the schema must
take and refuse the same files, as far as a schema can know, and the example of the page must work
as it is told there. Usage: check_platform_schema.py HOOKGATE (or $HOOKGATE_BIN). Prints TAP."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import jsonschema
import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]

BASE = {
    "name": "acme",
    "title": "Acme",
    "signatures": "{algorithm: hmac-sha256, header: x-sig, message: '{body}'}",
    "event_type": "/type",
    "events": "[{type: a.b}]",
    "limited": "{status: 503}",
}


def signed(words):
    return {"signatures": "{algorithm: hmac-sha1, header: x-sig, message: '{body}', " + words + "}"}


def static(words):
    return {"signatures": "{algorithm: static, " + words + "}"}


def asked(words):
    return {"challenges": "{" + words + "}"}


SIGNS_TOKENS = asked("via: get-query, token: c, unsigned: true, answer: hmac-json, hmac_field: r, "
                     "hmac_prefix: sha256=, hmac_encoding: base64, max: 256")

# (good for the schema, good for the program, what differs from BASE: None takes a key out).
# Where the two differ, the rule is one that a schema can't say: it needs another part of the file.
BOTH, NEITHER, PROGRAM_REFUSES = (True, True), (False, False), (True, False)
EXAMPLES = [
    (BOTH, {}),
    (BOTH, {"docs": "https://example.com/", "aliases": "[a-b, c]", "content_types": "text/plain"}),
    (BOTH, {"signatures": None, "endpoint_token": "authenticates"}),
    (BOTH, {"body": "opaque", "event_type": "{header: x-type}", "id": "[{header: x-id}]"}),
    (BOTH, {"unrepeatable_headers": "[X-A, x-b]"}),
    (BOTH, {"timestamp": "{header: x-time, unit: ms, tolerance: 5m, future: 10s}",
            "signatures": "{algorithm: hmac-sha256, header: x-sig, message: '{timestamp}{body}'}"}),
    (BOTH, {"timestamp": "{json: /at, unit: rfc3339}"}),
    (BOTH, {"timestamp": "{json: /at, unit: s, optional: true}"}),
    (NEITHER, {"timestamp": "{header: at, unit: s, optional: true}"}),
    (BOTH, {"events": "[{type: '*'}, {type: m.*}, {type: a}]"}),
    (NEITHER, {"events": "[{type: 'a*'}]"}),
    (BOTH, {"timestamp": "{header: a, unit: s}",
            "signatures": "{algorithm: hmac-sha1, header: x-sig, message: '{timestamp}{body}', timestamp_header: b}"}),
    (BOTH, signed("form: pairs, separator: ';', version: v1, prefix: p, prefix_optional: true")),
    (BOTH, signed("form: list, version: v1, encoding: base64, key: whsec")),
    (BOTH, {"signatures": "{algorithm: ed25519, key: hex, header: [a, b], each_header: true, "
                          "message: 'v0:{header:X-Id}{method}{url}{body}'}"}),
    (BOTH, {"signatures": "[{algorithm: hmac-sha512, header: a, message: '{body}'}, "
                          "{algorithm: static, header: b, prefix: 'Basic ', encoding: base64}]"}),
    (BOTH, static("query: token")),
    (BOTH, static("json: /value/*/clientState")),
    (BOTH, asked("via: post-json, when: /e, equals: x, token: /t, answer: text")),
    (BOTH, asked("via: post-json, when: {header: x-kind}, equals: x, token: /t, answer: text")),
    (BOTH, asked("via: post-json, when: /t, token: /t, unsigned: true, answer: json, echo_field: t")),
    (BOTH, asked("via: post-json, when: /type, equals: '1', answer: fixed, fixed: '{}'")),
    (BOTH, SIGNS_TOKENS),
    (BOTH, asked("via: get-query, when: m, equals: s, token: c, verify_key: v, verify_prefix: "
                 "verify_, unsigned: true, answer: text")),
    (BOTH, asked("via: post-query, token: c, unsigned: true, answer: text")),
    (BOTH, {"event_type": "[{header: x}, /a, {json: /b, means: a.b}, {means: c}]"}),
    (BOTH, {"events": "[{type: m.*}, {type: a, names: ['A b', a/b], required: [/id, [/x, /y~1]], "
                      "id: [/id], hold_back_while: {json: [/p, /q], is: x}}]"}),
    (BOTH, {"id": "[/id, [{text: t}, /a/*/id, {header: x}], [body-digest], arrival]"}),
    (BOTH, {"hold_back_while": "[{json: /s, is_not: [done, ok]}]"}),
    (BOTH, {"time": "{json: /at, unit: s}", "workspace": "{account: [/a, /b], email: /c}"}),
    (BOTH, {"limited": "{status: 429, retry_after: 2m}"}),
    (NEITHER, {"name": None}),
    (NEITHER, {"name": "Acme"}),
    (NEITHER, {"title": None}),
    (NEITHER, {"limited": None}),
    (NEITHER, {"limited": "{status: 500}"}),
    (NEITHER, {"limited": "{status: 503, retry_after: 60}"}),
    (NEITHER, {"alias": "[x]"}),
    (NEITHER, {"aliases": "[abc123]"}),
    (NEITHER, {"content_types": "application"}),
    (NEITHER, {"content_types": "'text/plain; charset=utf-8'"}),
    (NEITHER, {"body": "xml"}),
    (NEITHER, {"signatures": None}),
    (NEITHER, {"signatures": None, "endpoint_token": "routes"}),
    (NEITHER, {"endpoint_token": "authentic"}),
    (NEITHER, {"unrepeatable_headers": "[x y]"}),
    (NEITHER, {"timestamp": "{header: x-time}"}),
    (NEITHER, {"timestamp": "{unit: s}"}),
    (NEITHER, {"timestamp": "{header: a, json: /b, unit: s}"}),
    (NEITHER, {"timestamp": "{json: at, unit: s}"}),
    (NEITHER, {"timestamp": "{header: x, unit: seconds}"}),
    (NEITHER, {"timestamp": "{header: x, unit: s, tolerance: 300}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha265, header: a, message: '{body}'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-md5, header: a, message: '{body}'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, message: '{body}'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, query: a, message: '{body}'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, header: a}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, header: a, message: '{bodyy}'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, header: a, message: '{method}'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, header: a, message: '{body'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, header: a, message: '{header:}{body}'}"}),
    (NEITHER, {"signatures": "{algorithm: hmac-sha1, header: [a, b, c, d, e], message: '{body}'}"}),
    (NEITHER, signed("form: list")),
    (NEITHER, signed("version: v1")),
    (NEITHER, signed("separator: ';'")),
    (NEITHER, signed("form: pairs, version: v1, separator: '+'")),
    (NEITHER, signed("prefix_optional: true")),
    (NEITHER, signed("each_header: true")),
    (NEITHER, signed("query: a")),
    (NEITHER, signed("key: utf8")),
    (NEITHER, signed("encoding: base32")),
    (NEITHER, static("header: a, message: '{body}'")),
    (NEITHER, static("header: a, key: base64")),
    (NEITHER, static("header: a, form: list, version: v1")),
    (NEITHER, static("json: /a, prefix: p")),
    (NEITHER, static("json: a")),
    (NEITHER, asked("via: post-json, token: /t, answer: text")),
    (NEITHER, asked("via: post-json, when: e, equals: x, token: /t, answer: text")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, token: t, answer: text")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, answer: text")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, token: /t, answer: json")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, token: /t, answer: text, echo_field: f")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, token: /t, answer: hmac-json")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, token: /t, answer: fixed, fixed: '{}'")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, answer: fixed")),
    (NEITHER, asked("via: post-json, when: /e, equals: x, token: /t, unsigned: true, "
                    "answer: hmac-json, hmac_field: f")),
    (NEITHER, asked("via: get-query, token: c, answer: text")),
    (NEITHER, asked("via: get-query, token: /c, unsigned: true, answer: text")),
    (NEITHER, asked("via: get-query, equals: s, token: c, unsigned: true, answer: text")),
    (NEITHER, asked("via: get-query, token: c, verify_key: v, unsigned: true, answer: text")),
    (NEITHER, asked("via: get-query, token: c, verify_prefix: verify_, unsigned: true, "
                    "answer: text")),
    (NEITHER, asked("via: post-query, token: c, unsigned: true, answer: json, echo_field: f")),
    (NEITHER, asked("via: put-json, token: c, unsigned: true, answer: text")),
    (NEITHER, {"event_type": "type"}),
    (NEITHER, {"event_type": "[]"}),
    (NEITHER, {"event_type": "{header: x, means: y}"}),
    (NEITHER, {"event_type": "body-digest"}),
    (NEITHER, {"events": "[]"}),
    (NEITHER, {"events": "[{name: a}]"}),
    (NEITHER, {"events": "[{type: 'a b'}]"}),
    (NEITHER, {"events": "[{type: a, required: id}]"}),
    (NEITHER, {"events": "[{type: a, required: [/a~2]}]"}),
    (NEITHER, {"events": "[{type: a, hold_back_while: {json: /x}}]"}),
    (NEITHER, {"events": "[{type: a, hold_back_while: {json: /x, is: a, is_not: b}}]"}),
    (NEITHER, {"id": "/id"}),
    (NEITHER, {"id": "[body-digset]"}),
    (NEITHER, {"id": "[{text: a}]"}),
    (NEITHER, {"id": "[[{text: a}, {text: b}]]"}),
    (NEITHER, {"id": "[{json: /id, header: x}]"}),
    (NEITHER, {"id": "[{pair: t}]"}),
    (NEITHER, {"id": "[[/a, /b, /c, /d, /e, /f, /g, /h, /i]]"}),
    (NEITHER, {"time": "{header: x, unit: s}"}),
    (NEITHER, {"workspace": "{account: {header: x}}"}),
    (PROGRAM_REFUSES, {"name": "acne"}),
    (PROGRAM_REFUSES, {"body": "opaque"}),
    (PROGRAM_REFUSES, {"timestamp": "{pair: t, unit: s}"}),
    (PROGRAM_REFUSES, {"timestamp": "{header: x, unit: s}"}),
    (PROGRAM_REFUSES, signed("timestamp_header: b")),
    (PROGRAM_REFUSES, {"signatures": "{algorithm: hmac-sha1, header: a, "
                                     "message: '{timestamp}{body}'}"}),
    (PROGRAM_REFUSES, {"events": "[{type: a}, {type: a}]"}),
    (PROGRAM_REFUSES, {"event_type": "[{means: a.b}, /type]"}),
    (PROGRAM_REFUSES, asked("via: post-json, when: /e, equals: x, answer: fixed, fixed: '{x'")),
    (PROGRAM_REFUSES, {"event_type": "{header: x}", **SIGNS_TOKENS}),
    (PROGRAM_REFUSES, {"body": "opaque", "event_type": "{header: x}", **SIGNS_TOKENS}),
    (PROGRAM_REFUSES, {"timestamp": "{header: x, unit: s, tolerance: 8d}"}),
]



def several(count, one):
    """A list of `one` with different letters, or numbers, in place of # and @."""
    return "[" + ", ".join(one.replace("#", "abcdefghi"[n % 9]).replace("@", str(n)) for n in range(count)) + "]"


# As many as may stand in a list: one more is refused.
for most, key, whole, one in (
        (8, "aliases", "@", "word-#"), (8, "content_types", "@", "text/#"), (16, "unrepeatable_headers", "@", "x-@"),
        (4, "signatures", "@", "{algorithm: static, header: #}"),
        (4, "signatures", "{algorithm: static, header: @}", "x-#"),
        (4, "challenges", "@", "{via: get-query, token: #, unsigned: true, answer: text}"),
        (32, "event_type", "@", "/#"), (64, "events", "@", "{type: t@}"), (32, "id", "@", "/#"), (8, "id", "[@]", "/#"),
        (16, "events", "[{type: t, names: @}]", "n@"), (16, "events", "[{type: t, required: @}]", "/#"),
        (32, "events", "[{type: t, hold_back_while: {json: /x, is: @}}]", "n@")):
    EXAMPLES += [(BOTH, {key: whole.replace("@", several(most, one))}),
                 (NEITHER, {key: whole.replace("@", several(most + 1, one))})]

failed = 0
number = 0


def report(good, name, remarks=""):
    global failed, number
    number += 1
    failed += not good
    print(f"{'ok' if good else 'not ok'} {number} - {name}")
    if not good:
        print("".join(f"# {line}\n" for line in remarks.splitlines()), end="")


def text_of(changes):
    keys = {**BASE, **changes}
    return "".join(f"{key}: {value}\n" for key, value in keys.items() if value is not None)


class Program:
    """The binary, with a configuration and one platform's folder."""

    def __init__(self, binary, folder):
        self.binary = binary
        self.folder = pathlib.Path(folder)
        self.config = self.folder / "c.yaml"
        self.config.write_text("listen: {plain: '127.0.0.1:8080'}\npublic_url: https://x.example\n"
                               "postgres: {conninfo: host=db}\nkafka: {brokers: 'k:9092'}\n"
                               f"platforms: {{directory: {self.folder}/p}}\n")

    def run(self, *arguments):
        return subprocess.run([self.binary, *map(str, arguments)], capture_output=True, text=True,
                              timeout=30, check=False)

    def check(self, name, text):
        """(good or not or None for a crash, what it said)"""
        (self.folder / "p" / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "p" / name / "platform.yaml").write_text(text)
        run = self.run("check", "--config", self.config)
        return {0: True, 2: False}.get(run.returncode), run.stderr


def check_examples(validator, program):
    for want, changes in EXAMPLES:
        text = text_of(changes)
        got, said = program.check("acme", text)
        name = f"{changes or 'the base'}"
        report(validator.is_valid(yaml.safe_load(text)) is want[0],
               f"schema {'takes' if want[0] else 'refuses'} {name}")
        report(got is want[1], f"program {'takes' if want[1] else 'refuses'} {name}", said)
        # Whatever is wrong is told with its place.
        if not want[1]:
            places = [re.search(r"platform\.yaml:\d+:\d+: ", line) for line in said.splitlines()]
            report(bool(places) and all(places), f"the place is told of {name}", said)


def check_shipped(validator):
    for path in sorted((ROOT / "platforms").glob("*/platform.yaml")):
        errors = "\n".join(str(e.message) for e in
                           validator.iter_errors(yaml.safe_load(path.read_text())))
        report(not errors, f"schema takes {path.relative_to(ROOT)}", errors)


def keys_of(schema):
    """Every word of the vocabulary: the keys and the fixed values that the schema knows."""
    words = set()
    todo = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            words |= set(part.get("properties", {}))
            words |= {word for word in part.get("enum", []) if isinstance(word, str)}
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return words


def check_page(validator, program, schema):
    page = (ROOT / "platforms/README.md").read_text()
    blocks = dict(re.findall(r"```(yaml|http)\n(.*?)```", page, re.S))
    got, said = program.check("acme", blocks["yaml"])
    report(got is True, "the page's platform is taken", said)
    report(validator.is_valid(yaml.safe_load(blocks["yaml"])), "the schema takes it, too")
    secret = program.folder / "secret"
    secret.write_text("acme-secret\n")
    request = program.folder / "r.http"
    request.write_text(blocks["http"].rstrip("\n"))
    notes = dict(re.findall(r"^# (\w+): (.*)$", blocks["http"], re.M))
    run = program.run("verify", "acme", "--secret-file", secret, "--platforms",
                      program.folder / "p", "--at", notes["now"], request)
    said = run.stdout + run.stderr
    told = json.loads(run.stdout) if run.stdout else {}
    report(run.returncode == 0 and told.get("event_type") == notes["event_type"]
           and told.get("external_id") == notes["external_id"], "the page's request is accepted", said)
    request.write_text(blocks["http"].replace("note_1", "note_2").rstrip("\n"))
    run = program.run("verify", "acme", "--secret-file", secret, "--platforms",
                      program.folder / "p", "--at", notes["now"], request)
    report(run.returncode == 1, "another body is not", run.stdout + run.stderr)
    missing = [word for word in sorted(keys_of(schema)) if not re.search(rf"[`{{ ,\[\"]{re.escape(word)}[`:}} ,\]\"]", page)]
    report(not missing, "every word stands on the page", " ".join(missing))


def check_url(program):
    """A signature over the URL: the request's Host stands for the gateway's public_url."""
    got, said = program.check("hubspot", text_of({
        "name": "hubspot", "timestamp": "{header: x-time, unit: ms}",
        "signatures": "{algorithm: hmac-sha256, header: x-sig, encoding: base64, "
                      "message: '{method}{url}{body}{timestamp}'}"}))
    report(got is True, "a platform that signs the URL is taken", said)
    body = '{"type":"a.b"}'
    text = f"POSThttps://hooks.example.com/webhooks/hubspot?a=%20b{body}1739923528000"
    mark = base64.b64encode(hmac.new(b"acme-secret", text.encode(), hashlib.sha256).digest()).decode()
    request = program.folder / "u.http"
    for host, want in (("hooks.example.com", 0), ("hooks.example.org", 1)):
        request.write_text(f"POST /webhooks/hubspot?a=%20b HTTP/1.1\nHost: {host}\nX-Sig: {mark}\n"
                           f"X-Time: 1739923528000\n\n{body}")
        run = program.run("verify", "hubspot", "--secret-file", program.folder / "secret", "--platforms",
                          program.folder / "p", "--at", "1739923528", request)
        report(run.returncode == want, f"verify says {want} of a URL at {host}", run.stdout + run.stderr)


def main():
    binary = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("HOOKGATE_BIN")
    if not binary:
        print("Bail out! usage: check_platform_schema.py HOOKGATE")
        return 2
    schema = json.loads((ROOT / "platforms/platform.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    with tempfile.TemporaryDirectory() as folder:
        program = Program(binary, folder)
        check_examples(validator, program)
        check_shipped(validator)
        check_page(validator, program, schema)
        check_url(program)
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
