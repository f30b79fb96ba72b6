"""`hookgate verify` with requests that are none, and used wrongly."""
import json
import os

import pytest

from harness import ROOT
from judging import AT, MACS, SCHEMES, SENTENCES, accepted, body_of, check, http, run
from judging import folder, verify  # noqa: F401 (fixtures)

BODY = body_of(SCHEMES["zoom"])
REQUEST = http("zoom", BODY, SCHEMES["zoom"].headers(BODY))
MALFORMED = {
    "nothing": b"",
    "a word": b"hello",
    "a line": b"hello\r\n\r\n",
    "no version": b"POST /webhooks/zoom\r\n\r\n",
    "HTTP/2": REQUEST.replace(b"HTTP/1.1", b"HTTP/2"),
    "no target": REQUEST.replace(b" /webhooks/zoom", b"", 1),
    "absolute target": REQUEST.replace(b" /webhooks", b" https://hooks.example.com/webhooks", 1),
    "no colon": REQUEST.replace(b"Host: ", b"Host ", 1),
    "no name": REQUEST.replace(b"Host: ", b": ", 1),
    "blank in the name": REQUEST.replace(b"Host:", b"Host :", 1),
    "folded": REQUEST.replace(b"Host: ", b"Host:\r\n ", 1),
    "NUL": REQUEST.replace(b"hooks", b"hoo\0ks", 1),
    "carriage return": REQUEST.replace(b"hooks.", b"hooks\r.", 1),
    "no end of the head": REQUEST.split(b"\r\n\r\n")[0] + b"\r\n",
    "101 headers": REQUEST.replace(b"Host", b"X: y\r\n" * 100 + b"Host", 1),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_requests(verify, name):
    status, verdict = verify("zoom", MALFORMED[name], SCHEMES["zoom"].secret)
    assert status == 1 and verdict["authentic"] is False and verdict["platform"] == "zoom"
    (told,) = verdict["checks"]
    assert told["check"] == "request" and told["ok"] is False and told["reason"]
    error = {"code": "bad_request", "message": "The request is malformed."}
    assert verdict["answer"] == {"status": 400, "body": {"error": error}}
    assert [verdict[key] for key in ("event_type", "external_id", "dedup_key", "event_id")] == [None] * 4


@pytest.mark.parametrize("change, outcome, status", [
    (lambda r: r.replace(b"POST", b"GET"), "METHOD_NOT_ALLOWED", 405),
    (lambda r: r.replace(b"/zoom", b"/stripe", 1), "UNKNOWN_PLATFORM", 404),
    (lambda r: r.replace(b"/webhooks/zoom", b"/zoom", 1), "UNKNOWN_ROUTE", 404),
    (lambda r: r.replace(b"/json", b"/xml", 1), "CONTENT_TYPE", 415),
    (lambda r: r.replace(b"Host", b"Content-Encoding: gzip\r\nHost", 1), "COMPRESSED", 415),
])
def test_refused_before_the_signature(verify, change, outcome, status):
    told, verdict = verify("zoom", change(REQUEST), SCHEMES["zoom"].secret)
    assert told == 1 and verdict["authentic"] is False and verdict["answer"]["status"] == status
    assert verdict["checks"] == [check("route", False, SENTENCES[outcome])]


HANDSHAKES = """
name: meta
title: Handshakes that come unsigned
signatures: {algorithm: hmac-sha256, header: x-hub-signature-256, prefix: sha256=, message: "{body}"}
challenges:
  - {via: get-query, when: hub.mode, equals: subscribe, token: hub.challenge, verify_key: hub.verify_token,
     verify_prefix: verify_, unsigned: true, answer: text}
  - {via: post-json, when: /type, equals: hello, token: /challenge, unsigned: true, answer: text}
event_type: /object
events: [{type: page}]
limited: {status: 429}
"""


@pytest.mark.parametrize("query, outcome, status", [
    ("hub.verify_token=verify_me&hub.challenge=115", "CHALLENGED", 200),
    ("hub.verify_token=verify_no&hub.challenge=115", "CHALLENGE_UNVERIFIED", 401),
    ("hub.verify_token=verify_me", "CHALLENGE_REFUSED", 400),
])
def test_unsigned_handshakes(verify, folder, query, outcome, status):
    request = http("meta", b"", [], "GET", "/webhooks/meta?hub.mode=subscribe&" + query)
    told, verdict = verify("meta", request, "secret\nverify_me", *folder(HANDSHAKES))
    assert told == 1 and verdict["authentic"] is False and verdict["answer"]["status"] == status
    assert verdict["checks"] == [check("challenge", status == 200, SENTENCES[outcome])]


def test_unsigned_handshake_in_a_body(verify, folder):
    where = folder(HANDSHAKES)
    request = http("meta", b'{"type":"hello","challenge":"abc"}', [("content-type", "application/json")])
    told, verdict = verify("meta", request, "secret", *where)
    assert told == 1 and verdict["answer"] == {"status": 200, "body": "abc"}
    assert verdict["checks"] == [check("challenge", True, SENTENCES["CHALLENGED"])]


@pytest.mark.parametrize("platform", ["zoom", "slack", "github"])
def test_one_fault_has_one_name(verify, platform):
    """Whether or not the platform has a handshake that is looked for first."""
    scheme, body = SCHEMES[platform], b'{"event":'
    told, verdict = verify(platform, http(platform, body, scheme.headers(body)), scheme.secret)
    assert told == 0 and verdict["answer"]["status"] == 400
    assert verdict["checks"][-1] == check("extract", False, SENTENCES["BAD_JSON"])


def test_how_a_request_may_be_written(verify, tmp_path):
    """As a file or from standard input, with either kind of line end, with notes, with any Content-Length."""
    secret = SCHEMES["zoom"].secret
    accepted(verify("zoom", REQUEST, secret), "zoom", "recording.completed", "4444AAA/AAAA+A==")
    head, body = REQUEST.split(b"\r\n\r\n")
    for other in (head.replace(b"\r\n", b"\n") + b"\n\n" + body, b"# expect: accepted\n# a remark\n" + REQUEST,
                  head + b"\r\nContent-Length: 3\r\n\r\n" + body,
                  head.replace(b"x-zm-", b"X-ZM-") + b"\r\n\r\n" + body):
        accepted(verify("zoom", other, secret), "zoom", "recording.completed", "4444AAA/AAAA+A==")
    path = tmp_path / "request.http"
    path.write_bytes(REQUEST)
    done = run("verify", "zoom", "--secret-file", tmp_path / "secret", "--at", AT, path)
    assert done.returncode == 0 and json.loads(done.stdout) == verify("zoom", REQUEST, secret)[1]


def test_wrong_usage(tmp_path):
    secret, request = tmp_path / "secret", tmp_path / "request.http"
    secret.write_text(SCHEMES["zoom"].secret)
    secret.chmod(0o600)
    request.write_bytes(REQUEST)
    good = ["verify", "zoom", "--secret-file", secret, "--at", AT]
    assert run(*good, request).returncode == 0 # no line end behind the secret
    wrong = [["verify"], ["verify", "zoom"], ["verify", "zoom", request], good, [*good, request, request],
             [*good, "--nosuch", request], [*good, "--workspace", "w" * 257, request]]
    for text in ("", "soon", "-1", "1.5", "1 ", "1" * 30):
        wrong.append(["verify", "zoom", "--secret-file", secret, "--at", text, request])
    for args in wrong:
        done = run(*args)
        assert done.returncode == 2 and done.stdout == b"" and done.stderr, args
    assert run("verify", "--help").returncode == 0


@pytest.mark.parametrize("args, told", [
    (["strpe", "--secret-file", "secret", "request"], b"did you mean 'stripe'?"),
    (["../zoom", "--secret-file", "secret", "request"], b"no platform"),
    (["", "--secret-file", "secret", "request"], b"no platform"),
    (["zoom", "--secret-file", "secret", "nosuch.http"], b"nosuch.http: there is no such file"),
    (["zoom", "--secret-file", "secret", "."], b"can't be"),
    (["zoom", "--secret-file", "nosuch", "request"], b"nosuch: can't be opened"),
    (["zoom", "--secret-file", "empty", "request"], b"empty: is empty"),
    (["zoom", "--secret-file", "blank-line", "request"], b"blank-line:2:"),
    (["zoom", "--secret-file", "nine", "request"], b"more than 8"),
    (["standard-webhooks", "--secret-file", "secret", "request"], b"whsec_"),
    (["zoom", "--secret-file", "secret", "--platforms", "nosuch", "request"], b"nosuch"),
    (["zoom", "--secret-file", "secret", "--platforms", "broken", "request"], b"broken/zoom/platform.yaml:"),
])
def test_what_is_not_there_or_broken(tmp_path, args, told):
    for name, text in (("secret", "s3cret\n"), ("empty", ""), ("blank-line", "a\n\nb\n"), ("nine", "s\n" * 9)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o600)
    (tmp_path / "request").write_bytes(REQUEST)
    (tmp_path / "broken" / "zoom").mkdir(parents=True)
    (tmp_path / "broken" / "zoom" / "platform.yaml").write_text("name: zoom\ntitel: Zoom\n")
    more = [] if "--platforms" in args else ["--platforms", os.path.join(ROOT, "platforms")]
    done = run("verify", *args, *more, cwd=tmp_path)
    assert done.returncode == 2 and done.stdout == b"" and told in done.stderr, done.stderr
    assert b"s3cret" not in done.stderr


def test_platforms_of_the_working_directory(tmp_path, folder):
    folder(MACS)
    (tmp_path / "secret").write_text(b"Jefe".hex())
    request = http("rfc", b"what do ya want for nothing?", [("x-sha1", "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79")])
    done = run("verify", "rfc", "--secret-file", "secret", "-", stdin=request, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert run("verify", "rfc", "--secret-file", tmp_path / "secret", "-", stdin=request).returncode == 2
