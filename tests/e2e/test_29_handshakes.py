"""Senders that don't sign, and handshakes, through a real server: what unit tests can't see is what goes over the
wire and into Kafka."""
import contextlib
import hashlib
import hmac
import os
import uuid

import pytest

# Written from platforms/README.md.
PLATFORMS = {
    "google-calendar": """\
name: google-calendar
title: Google Calendar
body: opaque
signatures: {algorithm: static, header: x-goog-channel-token}
event_type: {header: x-goog-resource-state}
events: [{type: exists}]
id: [[{header: x-goog-channel-id}, {header: x-goog-message-number}]]
limited: {status: 503}
""",
    "dropbox": """\
name: dropbox
title: Dropbox
signatures: {algorithm: hmac-sha256, header: x-dropbox-signature, message: "{body}"}
challenges: {via: get-query, token: challenge, unsigned: true, answer: text}
event_type: {json: /list_folder, means: files.changed}
events: [{type: files.changed}]
id: [arrival]
limited: {status: 503}
""",
    "meetgeek": """\
name: meetgeek
title: MeetGeek
signatures: {algorithm: static, query: token}
event_type: {json: /meeting_id, means: meeting.ready}
events: [{type: meeting.ready}]
id: [/meeting_id]
limited: {status: 503}
""",
}
SECRET = "the-secret-of-the-sender"


@contextlib.contextmanager
def files(servers):
    directory = servers.state.make_directory("extra", "handshakes-platforms")
    enabled = {}
    for name, text in PLATFORMS.items():
        os.makedirs(os.path.join(directory, name), exist_ok=True)
        with open(os.path.join(directory, name, "platform.yaml"), "w", encoding="utf-8") as file:
            file.write(text)
        enabled[name] = {"secret_files": [os.path.join(directory, "secret")], "fallback_workspace": "demo"}
    descriptor = os.open(os.path.join(directory, "secret"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(SECRET + "\n")
    for name in PLATFORMS:
        servers.query("INSERT INTO core.integrations (workspace_id, platform) VALUES ('demo', %s)", name)
    try:
        yield {"directory": directory, "enabled": enabled}
    finally:
        for name in PLATFORMS:
            servers.query("DELETE FROM core.integrations WHERE platform = %s", name)


@pytest.fixture(scope="module")
def gateway(servers):
    with files(servers) as platforms, servers.gateway("handshakes", {"platforms": platforms},
                                                      drop=("platforms.enabled.zoom", "platforms.enabled.fireflies",
                                                            "platforms.enabled.otter")) as made:
        yield made


@pytest.fixture
def own(gateway):
    made = gateway.client()
    yield made
    made.close()


def record_of(servers, answer):
    [receipt] = servers.receipts(answer.json["webhook_event_id"])
    return servers.record_at(receipt["kafka_topic"], receipt["kafka_partition"], receipt["kafka_offset"])


def test_an_empty_body_is_recorded(servers, own):
    channel = uuid.uuid4().hex
    headers = {"x-goog-channel-token": SECRET, "x-goog-channel-id": channel, "x-goog-message-number": "1",
               "x-goog-resource-state": "exists"}
    answer = own.request("POST", "/webhooks/google-calendar", b"", headers)
    assert answer.status == 200 and answer.json["status"] == "accepted", answer.raw
    assert answer.json["external_id"] == channel + ":1"
    record = record_of(servers, answer)
    assert record.value == b"" and record.header("ce_type") == "exists"
    assert record.header("content-type") == "application/octet-stream"
    assert own.request("POST", "/webhooks/google-calendar", b"", headers).json["status"] == "duplicate"
    headers["x-goog-resource-state"] = "sync"
    assert own.request("POST", "/webhooks/google-calendar", b"", headers).json["status"] == "ignored"
    headers["x-goog-channel-token"] = "another"
    assert own.request("POST", "/webhooks/google-calendar", b"", headers).status == 401


def test_a_challenge_by_get_is_plain_text(own):
    answer = own.request("GET", "/webhooks/dropbox?challenge=%3Cb%3E+x")
    assert answer.status == 200 and answer.raw == b"<b> x"
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.headers["x-content-type-options"] == "nosniff"
    answer = own.request("GET", "/webhooks/dropbox")
    assert answer.status == 405 and answer.headers["allow"] == "POST"
    assert own.request("GET", "/webhooks/meetgeek?challenge=x").status == 405


def test_deliveries_without_an_id_are_all_news(servers, own):
    body = b'{"list_folder":{"accounts":["dbid:1"]}}'
    headers = {"content-type": "application/json",
               "x-dropbox-signature": hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()}
    answers = [own.request("POST", "/webhooks/dropbox", body, headers) for _ in range(3)]
    assert [answer.json["status"] for answer in answers] == ["accepted"] * 3
    assert len({answer.json["webhook_event_id"] for answer in answers}) == 3
    assert all(record_of(servers, answer).value == body for answer in answers)


def test_a_secret_in_the_query_is_not_logged(gateway, own):
    body = b'{"meeting_id":"%s"}' % uuid.uuid4().hex.encode()
    mark = gateway.mark()
    headers = {"content-type": "application/json"}
    answer = own.request("POST", "/webhooks/meetgeek?token=" + SECRET, body, headers)
    assert answer.status == 200 and answer.json["status"] == "accepted", answer.raw
    assert own.request("POST", "/webhooks/meetgeek?token=" + SECRET[:-1], body, headers).status == 401
    assert own.request("POST", "/webhooks/meetgeek", body, headers).status == 401
    gateway.wait_line(mark, lambda line: line.get("outcome") == "signature_missing")
    assert SECRET[:-1] not in str(gateway.lines(mark))
