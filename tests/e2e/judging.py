"""`hookgate verify` without a server: how its verdicts are asked for and read, and how vendors sign. What is expected
is computed here, with Python's hmac and the vendors' documentation."""
import base64
import hashlib
import hmac
import json
import os
import re
import subprocess

import pytest

from harness import ROOT
from signing import event_id_of

BIN = os.environ.get("HOOKGATE_BIN")
AT = 1739923530
FLAT = {"error": {"code": "unauthorized", "message": "The request could not be authenticated."}}
with open(os.path.join(ROOT, "src", "outcome.def"), encoding="utf-8") as file:
    SENTENCES = dict(re.findall(r'^OUTCOME\((\w+),.*"([^"]+)"\)$', file.read(), re.M))
MATCHES = "it matches a secret of the file"
UNSIGNED_TIME = "the platform signs no timestamp"


def run(*args, stdin=b"", cwd=ROOT):
    return subprocess.run([BIN, *map(str, args)], input=stdin, capture_output=True, timeout=60, check=False, cwd=cwd)


def http(platform, body, headers, method="POST", path=None):
    """A raw request; `headers` are pairs, so that one may come twice."""
    head = [f"{method} {path or '/webhooks/' + platform} HTTP/1.1", "Host: hooks.example.com"]
    head += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


@pytest.fixture
def verify(tmp_path):
    """Judges a request; returns exit status and verdict."""
    def judge(platform, request, secret, *more, at=AT):
        path = tmp_path / "secret"
        path.write_text(secret + "\n")
        path.chmod(0o600)
        done = run("verify", platform, "--secret-file", path, "--at", at, *more, "-", stdin=request)
        assert done.stderr == b"", done.stderr
        assert done.stdout.count(b"\n") == 1 and done.stdout.endswith(b"}\n")
        return done.returncode, json.loads(done.stdout)
    return judge


def check(name, ok, reason=None):
    return {"check": name, "ok": ok, "reason": reason}


def refused(told, outcome):
    """Not authentic: the exit status, one reason, the flat answer, and nothing of the body."""
    status, verdict = told
    assert status == 1 and verdict["authentic"] is False
    failed = "freshness" if outcome.startswith("TIMESTAMP") and outcome != "TIMESTAMP_MISSING" else "signature"
    assert verdict["checks"][-1] == check(failed, False, SENTENCES[outcome]), verdict["checks"]
    assert [c["ok"] for c in verdict["checks"][:-1]] == [True] * (len(verdict["checks"]) - 1)
    assert verdict["answer"] == {"status": 401, "body": FLAT}
    for key in ("event_type", "external_id", "dedup_key", "event_id"):
        assert verdict[key] is None
    return verdict


def authentic(told, status=200, code=None):
    """Authentic, whatever the answer is."""
    exit_status, verdict = told
    assert exit_status == 0 and verdict["authentic"] is True, verdict
    assert all(c["ok"] for c in verdict["checks"] if c["check"] in ("signature", "freshness"))
    assert verdict["answer"]["status"] == status, verdict["answer"]
    if code:
        assert verdict["answer"]["body"]["error"]["code"] == code
    return verdict


def escaped(text):
    return re.sub(r"[/%\x00-\x1f\x7f]", lambda m: f"%{ord(m.group()):02X}", text)


def accepted(told, platform, event_type, external_id, workspace="-", key_type=None):
    """Everything that the object of an accepted event says."""
    verdict = authentic(told)
    key_type = event_type if key_type is None else key_type
    event_id = event_id_of(workspace, platform, key_type, external_id)
    assert list(verdict) == ["platform", "authentic", "checks", "event_type", "external_id", "dedup_key", "event_id",
                             "answer"]
    assert verdict["platform"] == platform
    assert verdict["event_type"] == event_type and verdict["external_id"] == external_id
    assert verdict["dedup_key"] == "/".join(map(escaped, (workspace, platform, key_type, external_id)))
    assert verdict["event_id"] == event_id
    assert verdict["answer"]["body"] == {"status": "accepted", "webhook_event_id": event_id, "external_id": external_id}
    assert all(c["ok"] for c in verdict["checks"])
    return verdict


@pytest.fixture
def folder(tmp_path):
    """A folder of platforms with one in it."""
    def make(text):
        name = re.search(r"^name: (.+)$", text, re.M).group(1)
        directory = tmp_path / "platforms" / name
        directory.mkdir(parents=True)
        (directory / "platform.yaml").write_text(text)
        return "--platforms", tmp_path / "platforms"
    return make


SHOPIFY = """
name: shopify
title: Shopify
docs: https://shopify.dev/docs/apps/build/webhooks/subscribe/https
signatures:
  - {algorithm: hmac-sha256, header: x-shopify-hmac-sha256, encoding: base64, message: "{body}"}
event_type: {header: x-shopify-topic}
events:
  - {type: orders.create, names: [orders/create], required: [/id]}
  - {type: orders.updated, names: [orders/updated], required: [/id]}
id: [body-digest]
limited: {status: 429}
"""
MACS = """
name: rfc
title: The test cases of the RFCs
signatures:
  - {algorithm: hmac-sha1, header: x-sha1, key: hex, message: "{body}"}
  - {algorithm: hmac-sha256, header: x-sha256, key: hex, message: "{body}"}
  - {algorithm: hmac-sha512, header: x-sha512, key: hex, message: "{body}"}
event_type: /type
events: [{type: "*"}]
limited: {status: 429}
"""


class Scheme:
    """How a vendor signs: platform, secret, an event, and the headers of a signed body."""
    def __init__(self, platform, secret, event, event_type, external_id, sign, digest, encoding, dated=False,
                 folder=None, key_type=None):
        self.platform, self.secret, self.event, self.event_type = platform, secret, event, event_type
        self.external_id, self.sign, self.digest, self.encoding = external_id, sign, digest, encoding
        self.dated, self.folder, self.key_type = dated, folder, key_type

    def headers(self, body, timestamp=AT, secret=None, digest=None):
        """All headers; `digest` replaces the true one's text."""
        if digest is None:
            digest = self.digest((secret or self.secret), body, timestamp)
        return [*self.sign(digest, timestamp)]


def hex_mac(secret, message):
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def b64_mac(secret, message):
    return base64.b64encode(hmac.new(secret.encode(), message, hashlib.sha256).digest()).decode()


def whsec_mac(secret, message):
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return base64.b64encode(hmac.new(key, message, hashlib.sha256).digest()).decode()


def sha256_of(body):
    return hashlib.sha256(body).hexdigest()


JSON = [("Content-Type", "application/json")]
SCHEMES = {
    "zoom": Scheme(
        "zoom", "zoom-secret-of-the-test",
        {"event": "recording.completed", "payload": {"object": {"uuid": "4444AAA/AAAA+A=="}}},
        "recording.completed", "4444AAA/AAAA+A==",
        lambda d, t: JSON + [("x-zm-request-timestamp", t), ("x-zm-signature", f"v0={d}")],
        lambda s, b, t: hex_mac(s, f"v0:{t}:".encode() + b), "hex", dated=True),
    "slack": Scheme(
        "slack", "8f742231b10e8888abcd99yyyzzz85a5",
        {"type": "event_callback", "team_id": "T1", "event": {"type": "message"}, "event_id": "Ev08MFMKH6"},
        "message", "Ev08MFMKH6",
        lambda d, t: JSON + [("X-Slack-Request-Timestamp", t), ("X-Slack-Signature", f"v0={d}")],
        lambda s, b, t: hex_mac(s, f"v0:{t}:".encode() + b), "hex", dated=True),
    "stripe": Scheme(
        "stripe", "whsec_of_the_test", {"id": "evt_1NG8Du2eZvKYlo2C", "object": "event", "type": "charge.captured"},
        "charge.captured", "evt_1NG8Du2eZvKYlo2C",
        lambda d, t: JSON + [("Stripe-Signature", f"t={t},v1={d},v0={'0' * 64}")],
        lambda s, b, t: hex_mac(s, f"{t}.".encode() + b), "hex", dated=True),
    "standard-webhooks": Scheme(
        "standard-webhooks", "whsec_" + base64.b64encode(bytes(range(32))).decode(),
        {"type": "invoice.paid", "data": {}},
        "invoice.paid", "msg_1",
        lambda d, t: JSON + [("webhook-id", "msg_1"), ("webhook-timestamp", t), ("webhook-signature", f"v1,{d}")],
        lambda s, b, t: whsec_mac(s, f"msg_1.{t}.".encode() + b), "base64", dated=True),
    "svix": Scheme(
        "standard-webhooks", "whsec_" + base64.b64encode(bytes(range(24))).decode(),
        {"type": "invoice.paid", "data": {}},
        "invoice.paid", "msg_2",
        lambda d, t: JSON + [("svix-id", "msg_2"), ("svix-timestamp", t), ("svix-signature", f"v1,{d}")],
        lambda s, b, t: whsec_mac(s, f"msg_2.{t}.".encode() + b), "base64", dated=True),
    "github": Scheme(
        "github", "It's a Secret to Everybody", {"action": "opened", "issue": {"id": 73464126}}, "issues", sha256_of,
        lambda d, t: JSON + [("X-GitHub-Event", "issues"), ("X-GitHub-Delivery", "72d3162e"),
                             ("X-Hub-Signature-256", f"sha256={d}")],
        lambda s, b, t: hex_mac(s, b), "hex", key_type=""),
    "shopify": Scheme(
        "shopify", "shpss_of_the_test", {"id": 820982911946154508, "email": "jon@example.com"},
        "orders.create", sha256_of,
        lambda d, t: JSON + [("X-Shopify-Topic", "orders/create"), ("X-Shopify-Webhook-Id", "b54557e4"),
                             ("X-Shopify-Hmac-Sha256", d)],
        lambda s, b, t: b64_mac(s, b), "base64", folder=SHOPIFY, key_type=""),
    "support-rag": Scheme(
        "support-rag", "rag-of-the-test", {"event_type": "query.failed", "event_id": "evt_1", "tenant_id": "t"},
        "query.failed", "evt_1",
        lambda d, t: JSON + [("X-Event-ID", "evt_other"), ("X-Signature", f"sha256={d}")],
        lambda s, b, t: b64_mac(s, b), "base64"),
    "loki": Scheme(
        "loki", "loki-of-the-test", {"event_type": "batch.completed", "event_id": 77}, "batch.completed", "77",
        lambda d, t: JSON + [("X-Webhook-Signature", f"sha256={d}")],
        lambda s, b, t: hex_mac(s, b), "hex"),
}


@pytest.fixture
def judge(verify, folder):
    """Judges a body and headers under a scheme."""
    found = {}

    def of(scheme, body, headers, *more, secret=None, at=AT):
        if scheme.folder and scheme.platform not in found:
            found[scheme.platform] = folder(scheme.folder)
        return verify(scheme.platform, http(scheme.platform, body, headers), secret or scheme.secret,
                      *found.get(scheme.platform, ()), *more, at=at)
    return of


def body_of(scheme, size=None, **more):
    document = {**scheme.event, **more}
    if size:
        document["padding"] = ""
        document["padding"] = "x" * (size - len(json.dumps(document, ensure_ascii=False).encode()))
    return json.dumps(document, ensure_ascii=False).encode()


def taken(told, scheme, body, **how):
    name = scheme.external_id(body) if callable(scheme.external_id) else scheme.external_id
    verdict = accepted(told, scheme.platform, scheme.event_type, name, key_type=scheme.key_type, **how)
    reason = UNSIGNED_TIME if scheme.platform in ("github", "shopify", "loki") else None
    assert verdict["checks"][:2] == [check("signature", True, MATCHES), check("freshness", True, reason)]
