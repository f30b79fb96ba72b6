"""A signed webhook in, the event in Kafka, its claim and receipt in Postgres; over each way in."""
import datetime
import hashlib
import json

import pytest

import signing

HEADERS = {"ce_specversion", "ce_id", "ce_source", "ce_type", "ce_subject", "ce_time", "content-type", "traceparent",
           "hookgate-workspace", "hookgate-integration", "hookgate-platform", "hookgate-external-id",
           "hookgate-received-at", "hookgate-secret"}


def accept(servers, client, event):
    answer = client.post(event)
    assert answer.status == 200, answer.raw
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json["status"] == "accepted"
    return answer.json


def stored(servers, told, event, workspace="demo"):
    """Checks row and record of an accepted event; returns the record."""
    (receipt,) = servers.receipts(told["webhook_event_id"])
    assert servers.claims(told["webhook_event_id"]) == 1
    assert receipt["status"] == "published"
    assert receipt["workspace_id"] == workspace and receipt["platform"] == event.platform
    assert receipt["external_id"] == told["external_id"]
    assert bytes(receipt["body_sha256"]) == hashlib.sha256(event.body).digest()
    assert receipt["body_size"] == len(event.body)
    assert receipt["kafka_topic"] == f"webhooks.{event.platform}"
    record = servers.record_at(receipt["kafka_topic"], receipt["kafka_partition"], receipt["kafka_offset"])
    assert record.value == event.body, "the record is not what was sent, byte for byte"
    assert record.header("ce_specversion") == "1.0"
    assert record.event_id == told["webhook_event_id"]
    assert record.header("ce_type") == receipt["event_type"]
    assert record.header("hookgate-workspace") == workspace
    assert record.header("hookgate-integration") == receipt["integration_id"]
    assert record.header("hookgate-platform") == event.platform
    assert record.header("hookgate-external-id") == told["external_id"]
    assert record.header("content-type").startswith("application/json")
    assert record.header("ce_source")
    assert record.header("ce_subject")
    received = datetime.datetime.fromisoformat(record.header("hookgate-received-at").replace("Z", "+00:00"))
    assert abs((received - receipt["received_at"]).total_seconds()) < 0.01
    assert abs((received - datetime.datetime.now(datetime.timezone.utc)).total_seconds()) < 30
    assert workspace.encode() in record.key and told["external_id"].encode() in record.key
    names = [name for name, _ in record.headers]
    assert len(names) == len(set(names)) and set(names) <= HEADERS, names
    assert told["webhook_event_id"] == signing.event_id_of(workspace, event.platform, receipt["event_type"],
                                                            told["external_id"])
    return record


@pytest.fixture(params=["nginx", "direct", "plain"])
def way(request, servers):
    url = {"nginx": servers.url, "direct": servers.direct_url(), "plain": servers.plain_url()}[request.param]
    made = servers.client(url)
    yield made
    made.close()


def test_zoom(servers, way, zoom):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = zoom().with_header("traceparent", trace)
    record = stored(servers, accept(servers, way, event), event)
    assert record.header("ce_type") == "recording.completed"
    assert record.header("traceparent") == trace
    assert record.header("hookgate-secret")
    assert servers.secret("zoom") not in str(record.headers)
    time = datetime.datetime.fromisoformat(record.header("ce_time").replace("Z", "+00:00"))
    assert round(time.timestamp() * 1000) == json.loads(event.body)["event_ts"]


def test_fireflies(servers, way, fireflies):
    event = fireflies()
    record = stored(servers, accept(servers, way, event), event)
    assert record.header("hookgate-external-id") == json.loads(event.body)["transcript_id"]


def test_otter(servers, way, otter):
    event = otter()
    record = stored(servers, accept(servers, way, event), event)
    assert servers.secret("otter-endpoint") not in str(record.headers) + str(record.key)


def test_all_bytes_of_a_body_arrive(servers, client, zoom):
    """Emoji, escapes, blanks and the largest body that is allowed: nothing is written anew."""
    event = zoom(topic='a \\"quoted\\" é 東京 🎉', extra={"nested": [1, 2.50, 1e3, None, True]})
    stored(servers, accept(servers, client, event), event)
    spaced = b" \n\t" + signing.zoom_body(servers.zoom_account).replace(b'", "', b'" \r\n , "') + b"\n\n"
    event = signing.zoom_signed(spaced, servers.secret("zoom"))
    stored(servers, accept(servers, client, event), event)


@pytest.mark.parametrize("url", ["url", "direct_url"])
def test_body_of_exactly_the_limit(servers, url, zoom):
    body = signing.zoom_body(servers.zoom_account)
    body += b" " * ((1 << 20) - len(body))
    event = signing.zoom_signed(body, servers.secret("zoom"))
    address = getattr(servers, url)
    made = servers.client(address() if callable(address) else address)
    stored(servers, accept(servers, made, event), event)
    made.close()


@pytest.mark.parametrize("alias", ["/webhooks/zoom/recording-completed"])
def test_zoom_alias(servers, client, zoom, alias):
    event = zoom(path=alias)
    stored(servers, accept(servers, client, event), event)


@pytest.mark.parametrize("body", ["v1", "v2", "body"])
@pytest.mark.parametrize("route", ["shared", "endpoint"])
def test_fireflies_forms_of_the_body(servers, way, route, body):
    """Thin bodies name nobody: the endpoint, or the configuration's fallback, says whose they are."""
    path = "/webhooks/fireflies" + ("/" + servers.secret("fireflies-endpoint") if route == "endpoint" else "")
    made = signing.fireflies_body(servers.fireflies_email) if body == "body" else signing.fireflies_thin_body(body)
    event = signing.fireflies_signed(made, servers.secret("fireflies"), path=path)
    record = stored(servers, accept(servers, way, event), event)
    named = json.loads(made)
    assert record.header("hookgate-external-id") == named[{"v1": "meetingId", "v2": "meeting_id"}.get(body, "transcript_id")]
    assert record.header("ce_type") == ("transcript.ready" if body == "body" else "meeting.transcribed")
    assert servers.secret("fireflies-endpoint") not in str(record.headers) + str(record.key)


def test_fireflies_endpoint_has_its_own_secret(servers, client):
    path = "/webhooks/fireflies/" + servers.secret("fireflies-endpoint")
    assert client.post(signing.fireflies_signed(signing.fireflies_thin_body("v2"), "other", path=path)).status == 401


def test_fireflies_alias(servers, client, fireflies):
    event = fireflies(path="/webhooks/fireflies/transcript-ready")
    stored(servers, accept(servers, client, event), event)


@pytest.mark.parametrize("how", [
    {"prefix": ""}, {"header": "x-fireflies-signature"}, {"header": "x-fireflies-signature", "prefix": ""}])
def test_fireflies_forms_of_the_signature(servers, client, fireflies, how):
    event = fireflies(**how)
    stored(servers, accept(servers, client, event), event)


@pytest.mark.parametrize("event", [
    "recording.transcript_completed", "meeting.started", "meeting.ended", "meeting.participant_joined"])
def test_zoom_event_types(servers, client, zoom, event):
    sent = zoom(event=event)
    record = stored(servers, accept(servers, client, sent), sent)
    assert record.header("ce_type") == event


def test_limited_workspace_is_another_workspace(servers, client, zoom):
    """The account decides: the same secret, another workspace, so another event id."""
    event = zoom(account=servers.limited_account)
    stored(servers, accept(servers, client, event), event, workspace="demo-limited")
