"""What is refused, with exactly which answer; and challenges, which are answered to verified requests only."""
import gzip
import hmac
import json
import time
import uuid

import pytest

import signing

FLAT = {"code": "unauthorized", "message": "The request could not be authenticated."}


def refused(answer, status, code=None):
    assert answer.status == status, answer.raw
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json["error"]
    assert set(error) == {"code", "message"} and error["message"]
    if code:
        assert error["code"] == code
    return error


def no_trace(servers, event):
    """A refused body has left nothing in Kafka."""
    assert all(record.value != event.body for record in servers.records(f"webhooks.{event.platform}"))


def flipped(text):
    return text[:-1] + ("0" if text[-1] != "0" else "1")


ZOOM_BREAKS = {
    "wrong digest": lambda e: e.with_header("x-zm-signature", flipped(e.headers["x-zm-signature"])),
    "truncated digest": lambda e: e.with_header("x-zm-signature", e.headers["x-zm-signature"][:-2]),
    "odd length": lambda e: e.with_header("x-zm-signature", e.headers["x-zm-signature"][:-1]),
    "longer digest": lambda e: e.with_header("x-zm-signature", e.headers["x-zm-signature"] + "00"),
    "not hex": lambda e: e.with_header("x-zm-signature", "v0=" + "g" * 64),
    "no prefix": lambda e: e.with_header("x-zm-signature", e.headers["x-zm-signature"][3:]),
    "another prefix": lambda e: e.with_header("x-zm-signature", "v1=" + e.headers["x-zm-signature"][3:]),
    "empty": lambda e: e.with_header("x-zm-signature", ""),
    "prefix alone": lambda e: e.with_header("x-zm-signature", "v0="),
    "missing": lambda e: e.with_header("x-zm-signature", None),
    "no timestamp": lambda e: e.with_header("x-zm-request-timestamp", None),
    "empty timestamp": lambda e: e.with_header("x-zm-request-timestamp", ""),
    "another timestamp": lambda e: e.with_header("x-zm-request-timestamp", str(int(time.time()) - 1)),
    "another body": lambda e: signing.Event(e.platform, e.path, e.body.replace(b"Key", b"key") + b" ", e.headers),
}


@pytest.mark.parametrize("name", ZOOM_BREAKS)
def test_zoom_refuses(servers, client, zoom, name):
    event = ZOOM_BREAKS[name](zoom())
    assert refused(client.post(event), 401) == FLAT
    no_trace(servers, event)


@pytest.mark.parametrize("offset, status", [(-3600, 401), (-310, 401), (-280, 200), (280, 200), (310, 401), (3600, 401)])
def test_zoom_freshness(client, zoom, offset, status):
    answer = client.post(zoom(timestamp=int(time.time()) + offset))
    assert answer.status == status, answer.raw
    if status == 401:
        assert answer.json["error"] == FLAT


@pytest.mark.parametrize("stamp", ["abc", "1e9", "-5", "0x10", "99999999999999999999999", " ", "1700000000.5"])
def test_zoom_timestamp_that_is_none(servers, client, stamp):
    event = signing.zoom_signed(signing.zoom_body(servers.zoom_account), servers.secret("zoom"), stamp)
    assert refused(client.post(event), 401) == FLAT


def test_milliseconds_are_not_seconds(servers, client, zoom):
    assert refused(client.post(zoom(timestamp=int(time.time() * 1000))), 401) == FLAT


@pytest.mark.parametrize("header", ["x-zm-signature", "x-zm-request-timestamp"])
def test_doubled_header_is_refused(servers, header, zoom):
    """Two lines of one: nobody knows which one the sender meant. Over all ways in."""
    from client import exchange, head_of, statuses
    for url in (servers.url, servers.direct_url(), servers.plain_url()):
        event = zoom()
        head = head_of(event, **{"content-length": len(event.body), "connection": "close"})
        data = head + f"{header}: {event.headers[header]}\r\n\r\n".encode() + event.body
        assert statuses(exchange(url, data, servers.ca))[:1] == [401]


def test_secret_of_another_platform(servers, client, zoom):
    assert refused(client.post(zoom(secret=servers.secret("fireflies"))), 401) == FLAT


@pytest.mark.parametrize("name", ["missing", "wrong", "truncated", "sha1"])
def test_fireflies_refuses(servers, client, fireflies, name):
    event = fireflies()
    value = event.headers["x-hub-signature"]
    event = event.with_header("x-hub-signature", {
        "missing": None, "wrong": flipped(value), "truncated": value[:-4],
        "sha1": "sha1=" + hmac.new(servers.secret("fireflies").encode(), event.body, "sha1").hexdigest()}[name])
    assert refused(client.post(event), 401) == FLAT
    no_trace(servers, event)


def test_otter_without_endpoint_or_signature(client, otter):
    event = otter()
    event.path = "/webhooks/otter"
    assert refused(client.post(event), 401) == FLAT


# Challenges.

def test_zoom_url_validation_verified(servers, client):
    secret = servers.secret("zoom")
    answer = client.post(signing.zoom_validation(secret))
    assert answer.status == 200 and answer.headers["content-type"].startswith("application/json")
    assert answer.json == {"plainToken": "qgg8vlvZRS6UYooatFL8Aw",
                           "encryptedToken": signing.digest(secret, b"qgg8vlvZRS6UYooatFL8Aw")}


@pytest.mark.parametrize("how", ["unsigned", "wrong secret", "stale"])
def test_zoom_url_validation_unverified_signs_nothing(servers, client, how):
    secret = servers.secret("zoom")
    event = signing.zoom_validation("wrong" if how == "wrong secret" else secret,
                                    timestamp=int(time.time()) - 3600 if how == "stale" else None)
    if how == "unsigned":
        event = event.with_header("x-zm-signature", None)
    answer = client.post(event)
    assert refused(answer, 401) == FLAT
    assert signing.digest(secret, b"qgg8vlvZRS6UYooatFL8Aw").encode() not in answer.raw
    assert b"encryptedToken" not in answer.raw and b"qgg8vlvZRS6UYooatFL8Aw" not in answer.raw


@pytest.mark.parametrize("token", ["v0:1700000000:{}", "a" * 4096, "", None])
def test_zoom_url_validation_refuses_tokens_that_could_be_a_message(servers, client, token):
    secret = servers.secret("zoom")
    answer = client.post(signing.zoom_validation(secret, token))
    refused(answer, 400)
    assert b"encryptedToken" not in answer.raw
    if token:
        assert signing.digest(secret, token.encode()).encode() not in answer.raw


def test_a_challenge_is_no_event(servers, client):
    before = len(servers.records())
    client.post(signing.zoom_validation(servers.secret("zoom")))
    assert len(servers.records()) == before


# Other refusals.

@pytest.mark.parametrize("path, status", [
    ("/webhooks/nosuch", 404), ("/webhooks", 404), ("/webhooks/", 404), ("/", 404), ("/metrics", 404),
    ("/livez", 404), ("/webhooks/zoom/", 404), ("/webhooks/Zoom", 404), ("/webhooks//zoom", 404),
    ("/webhooks/zoom/x/y", 404)])
def test_unknown_paths(servers, zoom, path, status):
    made = servers.client(servers.direct_url())
    refused(made.post(zoom(path=path)), status, "not_found")
    made.close()


def test_unknown_endpoint(servers, client, otter):
    refused(client.post(otter(token="A" * 32)), 404, "not_found")


def test_endpoint_of_another_platform(servers, client, zoom):
    refused(client.post(zoom(path="/webhooks/zoom/" + servers.secret("otter-endpoint"))), 404, "not_found")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_other_methods(servers, method, zoom):
    event = zoom()
    for url in (servers.url, servers.direct_url()):
        made = servers.client(url)
        refused(made.request(method, event.path, b"", {}), 405, "method_not_allowed")
        made.close()


@pytest.mark.parametrize("way", ["url", "direct"])
def test_body_over_the_limit(servers, way):
    from client import exchange, head_of, statuses
    body = signing.zoom_body(servers.zoom_account)
    body += b" " * ((1 << 20) + 1 - len(body))
    event = signing.zoom_signed(body, servers.secret("zoom"))
    data = head_of(event, **{"content-length": len(body), "connection": "close"}) + b"\r\n" + body
    assert statuses(exchange(servers.url if way == "url" else servers.direct_url(), data, servers.ca))[:1] == [413]


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br"])
def test_compressed_body(client, zoom, coding):
    event = zoom()
    event = signing.Event(event.platform, event.path, gzip.compress(event.body), event.headers)
    refused(client.post(event.with_header("content-encoding", coding)), 415)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])
def test_content_type(client, zoom, kind):
    refused(client.post(zoom().with_header("content-type", kind)), 415)


MALFORMED = {
    "empty": b"", "not json": b"hello", "cut off": b'{"event":"meeting.started","payload":{',
    "two documents": b"{}{}", "trailing comma": b'{"event":"meeting.started",}', "nan": b'{"event":NaN}',
    "invalid utf-8": b'{"event":"meeting.started\xff"}', "surrogate in utf-8": b'{"event":"\xed\xa0\x80"}',
    "raw newline": b'{"event":"a\nb"}', "huge number": b'{"event":"meeting.started","n":1e400}',
    "array": b"[]", "string": b'"x"', "bom": b"\xef\xbb\xbf{}",
    "deep": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "repeated key": b'{"event":"meeting.started","event":"meeting.ended","payload":{"account_id":"x","object":{}}}',
}


@pytest.mark.parametrize("name", MALFORMED)
def test_signed_but_malformed(servers, client, name):
    event = signing.zoom_signed(MALFORMED[name], servers.secret("zoom"))
    refused(client.post(event), 400)


@pytest.mark.parametrize("name", ["not json", "deep"])
def test_unsigned_and_malformed_is_only_unsigned(client, name):
    """Nothing of an unverified body is parsed."""
    event = signing.zoom_signed(MALFORMED[name], "wrong")
    assert refused(client.post(event), 401) == FLAT


def test_required_field_missing(servers, client):
    document = json.loads(signing.zoom_body(servers.zoom_account))
    del document["payload"]["object"]
    event = signing.zoom_signed(json.dumps(document).encode(), servers.secret("zoom"))
    refused(client.post(event), 400, "field_missing")


def ignored(answer):
    assert answer.status == 200, answer.raw
    assert answer.json["status"] == "ignored" and answer.json["reason"]
    assert "webhook_event_id" not in answer.json


def test_unsupported_event_type(servers, client, zoom):
    event = zoom(event="zoomroom.alert")
    ignored(client.post(event))
    no_trace(servers, event)


def test_unknown_workspace(servers, client, zoom):
    event = zoom(account="NobodysAccount" + uuid.uuid4().hex[:8])
    ignored(client.post(event))
    no_trace(servers, event)


def test_partial_otter_speech_waits(servers, client, otter):
    event = otter(state="processing")
    ignored(client.post(event))
    no_trace(servers, event)


def test_paused_integration(servers, client, zoom):
    from harness import until
    account = "Paused" + uuid.uuid4().hex[:10]
    servers.query("INSERT INTO core.workspaces (workspace_id) VALUES ('paused') ON CONFLICT DO NOTHING")
    servers.query("INSERT INTO core.integrations (workspace_id, platform, status, account_ids) "
                  "VALUES ('paused', 'zoom', 'paused', %s)", [account])
    answer = until("the directory", lambda: _told(client, zoom(account=account), "not connected"), 10)
    ignored(answer)


def _told(client, event, words):
    answer = client.post(event)
    return answer if words in answer.json.get("reason", "") else None


def test_new_integration_is_known_soon(servers, client, zoom):
    """NOTIFY, not the timer: within two seconds, over all instances."""
    from harness import until
    account = "Fresh" + uuid.uuid4().hex[:10]
    servers.query("INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('demo', 'zoom', %s)",
                  [account])
    for number in range(1, servers.state.instances + 1):
        made = servers.client(servers.direct_url(number))
        until(f"instance {number}", lambda m=made: m.post(zoom(account=account)).json["status"] == "accepted", 2)
        made.close()
