"""Every scheme bent in every way, through `hookgate verify`."""
import base64
import json
import re

import pytest

from judging import AT, JSON, MATCHES, SCHEMES, SENTENCES, accepted, authentic, body_of, check, hex_mac, http, refused
from judging import taken
from judging import folder, judge, verify  # noqa: F401 (fixtures)

DATED = [name for name, scheme in SCHEMES.items() if scheme.dated]


@pytest.fixture(params=SCHEMES)
def scheme(request):
    return SCHEMES[request.param]


BODIES = {
    "plain": body_of,
    "not ASCII": lambda s: body_of(s, note="Élan 東京 🎉 \u2028 \u0000"),
    "blanks around": lambda s: b"\r\n " + body_of(s) + b"\n\n",
    "a byte of 1 MiB": lambda s: body_of(s, size=1 << 20),
}


@pytest.mark.parametrize("kind", BODIES)
def test_bodies_are_taken(judge, scheme, kind):
    body = BODIES[kind](scheme)
    taken(judge(scheme, body, scheme.headers(body)), scheme, body)


def test_workspace_is_part_of_the_key(judge, scheme):
    body = body_of(scheme)
    taken(judge(scheme, body, scheme.headers(body), "--workspace", "a/b%c"), scheme, body, workspace="a/b%c")


def test_bodies_that_are_no_event(judge, scheme):
    authentic(judge(scheme, b"", scheme.headers(b"")), 400, "bad_json")
    authentic(judge(scheme, b"\xff\xfe", scheme.headers(b"\xff\xfe")), 400, "bad_json")
    body = body_of(scheme) + b"}"
    authentic(judge(scheme, body, scheme.headers(body)), 400, "bad_json")
    body = body_of(scheme, size=(1 << 20) + 1)
    status, verdict = judge(scheme, body, scheme.headers(body))
    assert status == 1 and verdict["authentic"] is False # it is not even looked at
    assert verdict["checks"] == [check("route", False, SENTENCES["BODY_TOO_LARGE"])]
    assert verdict["answer"]["status"] == 413 and verdict["answer"]["body"]["error"]["code"] == "body_too_large"


def flipped(text):
    return ("1" if text[0] != "1" else "2") + text[1:]


DIGESTS = {
    "hex": {
        "truncated": (lambda d: d[:32], "SIGNATURE_MALFORMED"),
        "odd length": (lambda d: d[:-1], "SIGNATURE_MALFORMED"),
        "one byte more": (lambda d: d + "00", "SIGNATURE_MALFORMED"),
        "upper case": (str.upper, "SIGNATURE_MALFORMED"),
        "not hex": (lambda d: "g" + d[1:], "SIGNATURE_MALFORMED"),
        "base64": (lambda d: base64.b64encode(bytes.fromhex(d)).decode(), "SIGNATURE_MALFORMED"),
        "empty": (lambda d: "", "SIGNATURE_MALFORMED"),
        "blank inside": (lambda d: d[:32] + " " + d[32:], "SIGNATURE_MALFORMED"),
        "all zeros": (lambda d: "0" * 64, "SIGNATURE_MISMATCH"),
        "one digit": (flipped, "SIGNATURE_MISMATCH"),
    },
    "base64": {
        "truncated": (lambda d: base64.b64encode(base64.b64decode(d)[:16]).decode(), "SIGNATURE_MALFORMED"),
        "no padding": (lambda d: d.rstrip("="), "SIGNATURE_MALFORMED"),
        "one byte more": (lambda d: base64.b64encode(base64.b64decode(d) + b"0").decode(), "SIGNATURE_MALFORMED"),
        "lower case": (str.lower, "SIGNATURE_M"),
        "not base64": (lambda d: "*" + d[1:], "SIGNATURE_MALFORMED"),
        "hex": (lambda d: base64.b64decode(d).hex(), "SIGNATURE_MALFORMED"),
        "empty": (lambda d: "", "SIGNATURE_MALFORMED"),
        "loose bits": (lambda d: d[:-2] + chr(ord(d[-2]) + 1) + "=", "SIGNATURE_MALFORMED"),
        "all zeros": (lambda d: base64.b64encode(bytes(32)).decode(), "SIGNATURE_MISMATCH"),
        "one digit": (flipped, "SIGNATURE_MISMATCH"),
    },
}


def refused_in_some_way(told, outcome):
    """`outcome` may be the beginning of several."""
    reasons = [told[1]["checks"][-1]["reason"]]
    fits = (name for name, text in SENTENCES.items() if name.startswith(outcome) and text in reasons)
    outcome = next(fits, outcome)
    return refused(told, outcome)


def test_digests_are_refused(judge, scheme):
    body = body_of(scheme)
    digest = scheme.digest(scheme.secret, body, AT)
    for name, (bend, outcome) in DIGESTS[scheme.encoding].items():
        bent = bend(digest)
        assert bent != digest, name
        refused_in_some_way(judge(scheme, body, scheme.headers(body, digest=bent)), outcome)


def test_what_was_signed_otherwise(judge, scheme):
    body = body_of(scheme)
    good = scheme.headers(body)
    another = "whsec_" + base64.b64encode(bytes(24)).decode() if scheme.secret.startswith("whsec_") else "another"
    refused(judge(scheme, body, scheme.headers(body, secret=another)), "SIGNATURE_MISMATCH")
    refused(judge(scheme, body.replace(b":", b": ", 1), good), "SIGNATURE_MISMATCH")
    refused(judge(scheme, body[:-1], good), "SIGNATURE_MISMATCH")
    refused(judge(scheme, b"", good), "SIGNATURE_MISMATCH")
    refused(judge(scheme, body, good, secret=another), "SIGNATURE_MISMATCH")


def test_missing_and_doubled_headers(judge, scheme):
    body = body_of(scheme)
    good = scheme.headers(body)
    signature = good[-1]
    refused(judge(scheme, body, good[:-1]), "SIGNATURE_MISSING")
    refused(judge(scheme, body, [*good, signature]), "SIGNATURE_REPEATED")
    refused(judge(scheme, body, [*good, (signature[0].upper(), "x")]), "SIGNATURE_REPEATED")
    refused(judge(scheme, body, [(signature[0], ""), *good]), "SIGNATURE_REPEATED")
    for name, value in good:
        if re.search("timestamp|-id$|event", name, re.I) and name != "X-Shopify-Webhook-Id":
            refused(judge(scheme, body, [*good, (name, value)]), "SIGNATURE_REPEATED")
    if scheme.dated and scheme.platform != "stripe":
        undated = [pair for pair in good if "timestamp" not in pair[0].lower()]
        refused(judge(scheme, body, undated), "TIMESTAMP_MISSING")


@pytest.mark.parametrize("name", DATED)
def test_freshness(judge, name):
    scheme = SCHEMES[name]
    body = body_of(scheme)
    for offset, outcome in ((-300, None), (300, None), (-301, "TIMESTAMP_STALE"), (301, "TIMESTAMP_FUTURE"),
                            (-10**9, "TIMESTAMP_STALE"), (10**9, "TIMESTAMP_FUTURE")):
        told = judge(scheme, body, scheme.headers(body, AT + offset))
        if outcome:
            verdict = refused(told, outcome)
            assert verdict["checks"][0] == check("signature", True, MATCHES)
        else:
            taken(told, scheme, body)
    for text in ("soon", f"{AT}.0", f"+{AT}", f"{AT}000", "2025-02-19T00:05:30Z"):
        refused(judge(scheme, body, scheme.headers(body, text)), "TIMESTAMP_MALFORMED")
    # Not signed with the timestamp that is sent.
    signed = scheme.digest(scheme.secret, body, AT)
    refused(judge(scheme, body, scheme.headers(body, AT + 1, digest=signed)), "SIGNATURE_MISMATCH")


def test_several_signatures_in_one_header(judge):
    stripe, standard = SCHEMES["stripe"], SCHEMES["standard-webhooks"]
    body = body_of(stripe)
    good = stripe.digest(stripe.secret, body, AT)
    other = stripe.digest("whsec_next", body, AT)
    for text in (f"t={AT},v1={other},v1={good}", f"t={AT},v1={good},v1={other}", f"v1={good},t={AT}",
                 f"t={AT},v0=x,v1={good},v2=y", f"t={AT},v1=short,v1={good}",
                 f"t={AT}, v1={good}", f"t={AT}, v1={other}, v1={good}",
                 f"t={AT}," + f"v1={other}," * 15 + f"v1={good}"):
        taken(judge(stripe, body, JSON + [("Stripe-Signature", text)]), stripe, body)
    for text, outcome in (
            (f"t={AT},v0={good}", "SIGNATURE_MALFORMED"), (f"t={AT},t={AT},v1={good}", "SIGNATURE_MALFORMED"),
            (f"t={AT};v1={good}", "SIGNATURE_MALFORMED"), (f"t={AT} v1={good}", "SIGNATURE_MALFORMED"),
            (f"t={AT}," + f"v1={other}," * 16 + f"v1={good}", "SIGNATURE_MALFORMED"), (",", "SIGNATURE_MALFORMED"),
            (f"v1={good}", "TIMESTAMP_MISSING"), (f"t={AT},v1={other},v1={other}", "SIGNATURE_MISMATCH")):
        refused(judge(stripe, body, JSON + [("Stripe-Signature", text)]), outcome)
    body = body_of(standard)
    good = standard.digest(standard.secret, body, AT)
    other = base64.b64encode(bytes(32)).decode()
    front = JSON + [("webhook-id", "msg_1"), ("webhook-timestamp", AT)]
    for text in (f"v1,{other} v1,{good}", f"v1a,{other} v1,{good}", f"v2,x v1,{good} v9,y"):
        taken(judge(standard, body, front + [("webhook-signature", text)]), standard, body)
    for text, outcome in (
            (f"v2,{good}", "SIGNATURE_MALFORMED"), (good, "SIGNATURE_MALFORMED"),
            (f"v1,{other},v1,{good}", "SIGNATURE_MALFORMED"),
            (f"v1,{other} " * 16 + f"v1,{good}", "SIGNATURE_MALFORMED"),
            (f"v1,{other} v1,{other}", "SIGNATURE_MISMATCH")):
        refused(judge(standard, body, front + [("webhook-signature", text)]), outcome)


def test_several_secrets(judge, verify, scheme, tmp_path):
    body = body_of(scheme)
    mark = "whsec_" if scheme.secret.startswith("whsec_") else ""
    others = [mark + base64.b64encode(bytes([n] * 24)).decode() for n in range(7)]
    taken(judge(scheme, body, scheme.headers(body), secret="\n".join(others + [scheme.secret])), scheme, body)
    taken(judge(scheme, body, scheme.headers(body), secret="\n".join([scheme.secret] + others)), scheme, body)
    refused(judge(scheme, body, scheme.headers(body), secret="\n".join(others)), "SIGNATURE_MISMATCH")


def test_an_unverified_url_validation_is_never_answered(verify):
    """It would make the gateway sign what anybody asks for."""
    zoom = SCHEMES["zoom"]
    for token in ("qgg8vlvZRS6UYooatFL8Aw", f'v0:{AT}:{{"event":"recording.completed"}}'):
        body = json.dumps({"event": "endpoint.url_validation", "payload": {"plainToken": token}}).encode()
        wanted = hex_mac(zoom.secret, token.encode())
        good = zoom.headers(body)
        for headers, outcome in (
                (good[:-1], "SIGNATURE_MISSING"), (JSON, "SIGNATURE_MISSING"),
                (good + good[-1:], "SIGNATURE_REPEATED"), (zoom.headers(body, digest=""), "SIGNATURE_MALFORMED"),
                (zoom.headers(body, digest="0" * 64), "SIGNATURE_MISMATCH"),
                (zoom.headers(body, secret="x"), "SIGNATURE_MISMATCH"),
                (zoom.headers(body, AT - 301), "TIMESTAMP_STALE")):
            verdict = refused(verify("zoom", http("zoom", body, headers), zoom.secret), outcome)
            told = json.dumps(verdict)
            assert wanted not in told and token not in told and "encryptedToken" not in told
    # Verified, it is answered, but for a token that is an event's message.
    refusal = authentic(verify("zoom", http("zoom", body, good), zoom.secret), 400, "challenge_refused")
    assert wanted not in json.dumps(refusal)
    body = b'{"payload":{"plainToken":"qgg8vlvZRS6UYooatFL8Aw"},"event":"endpoint.url_validation"}'
    verdict = authentic(verify("zoom", http("zoom", body, zoom.headers(body)), zoom.secret))
    assert verdict["answer"]["body"] == {"plainToken": "qgg8vlvZRS6UYooatFL8Aw",
                                         "encryptedToken": hex_mac(zoom.secret, b"qgg8vlvZRS6UYooatFL8Aw")}
    assert verdict["event_id"] is None and verdict["checks"][-1] == check("challenge", True, SENTENCES["CHALLENGED"])


def test_a_replay_with_other_headers_is_a_copy(judge):
    """What is not signed can't make an event new."""
    github, shopify, svix = SCHEMES["github"], SCHEMES["shopify"], SCHEMES["svix"]
    body = body_of(github)
    first = judge(github, body, github.headers(body))[1]
    for event in ("issues", "something_else", "another"):
        again = [(n, {"X-GitHub-Event": event, "X-GitHub-Delivery": "anew"}.get(n, v)) for n, v in github.headers(body)]
        verdict = authentic(judge(github, body, again))
        assert verdict["event_type"] == event and verdict["event_id"] == first["event_id"]
    body = body_of(shopify)
    ids = set()
    for topic in ("orders/create", "orders/updated"):
        again = [(n, topic if n == "X-Shopify-Topic" else v) for n, v in shopify.headers(body)]
        ids.add(authentic(judge(shopify, body, again))["event_id"])
    assert len(ids) == 1
    body = body_of(svix)
    for added in ([("webhook-id", "msg_new")], [("webhook-id", "msg_new"), ("webhook-timestamp", AT)]):
        taken(judge(svix, body, svix.headers(body) + added), svix, body)


def test_authentic_but_ignored(judge):
    zoom = SCHEMES["zoom"]
    body = body_of(zoom, event="zoomroom.alert")
    verdict = authentic(judge(zoom, body, zoom.headers(body)))
    assert verdict["answer"]["body"]["status"] == "ignored" and verdict["event_type"] == "zoomroom.alert"
    assert verdict["external_id"] is None and verdict["event_id"] is None
    assert verdict["checks"][-1] == check("extract", False, SENTENCES["IGNORED_EVENT_TYPE"])
    body = body_of(zoom, payload={})
    verdict = authentic(judge(zoom, body, zoom.headers(body)), 400, "field_missing")
    assert verdict["checks"][-1] == check("extract", False, SENTENCES["FIELD_MISSING"])


def test_a_token_is_the_secret(verify):
    body = b'{"event":"speech.created","speech":{"id":"sp_1"}}'
    good = http("otter", body, JSON, path="/webhooks/otter/sampleToken_4f9b2c7e1d8a6305")
    accepted(verify("otter", good, "sampleToken_4f9b2c7e1d8a6305"), "otter", "speech.created", "sp_1")
    accepted(verify("otter", good, "another\nsampleToken_4f9b2c7e1d8a6305"), "otter", "speech.created", "sp_1")
    for path, outcome, status in (("/webhooks/otter/sampleToken_4f9b2c7e1d8a6306", "UNKNOWN_ENDPOINT", 404),
                                  ("/webhooks/otter", "SIGNATURE_MISSING", 401)):
        told, verdict = verify("otter", http("otter", body, JSON, path=path), "sampleToken_4f9b2c7e1d8a6305")
        assert told == 1 and verdict["authentic"] is False and verdict["answer"]["status"] == status
        assert verdict["checks"] == [check("signature", False, SENTENCES[outcome])]
        assert b"sampleToken" not in json.dumps(verdict).encode()
