"""The workspaces of the demonstration, and the proof: one signed event of each meeting platform goes
in through nginx and is read back from Kafka, byte by byte. Signed here, not by the gateway's own code."""
import hashlib
import hmac
import http.client
import json
import ssl
import subprocess
import time
import uuid

from . import credentials, gateway, kafka, postgres
from .progress import Failure, say, wait_for

ZOOM_ACCOUNT = "DevAccountUnlimited01"
ZOOM_LIMITED_ACCOUNT = "DevAccountLimited0001"
FIREFLIES_EMAIL = "organizer@demo.example"

_FIREFLIES = "00000000-0000-4000-8000-000000000003"

_ROWS = """\
INSERT INTO core.workspaces (workspace_id, name, plan) VALUES
    ('demo', 'Demonstration without limits', 'enterprise'),
    ('demo-limited', 'Demonstration with the default limits', 'default')
ON CONFLICT DO NOTHING;
INSERT INTO core.integrations (integration_id, workspace_id, platform, account_ids, emails, endpoint_token) VALUES
    ('00000000-0000-4000-8000-000000000001', 'demo', 'zoom', '{{{zoom}}}', '{{}}', NULL),
    ('00000000-0000-4000-8000-000000000002', 'demo-limited', 'zoom', '{{{limited}}}', '{{}}', NULL),
    ('{fireflies_id}', 'demo', 'fireflies', '{{}}', '{{{email}}}', '{fireflies}'),
    ('00000000-0000-4000-8000-000000000004', 'demo', 'otter', '{{}}', '{{}}', '{otter}')
ON CONFLICT DO NOTHING;
"""

# On its endpoint an integration is verified with a secret of its own. Sealed anew each time, so stored once.
_SECRET = """\
INSERT INTO core.integration_secrets (integration_id, sealed) SELECT '{integration}', '{sealed}'
WHERE NOT EXISTS (SELECT FROM core.integration_secrets WHERE integration_id = '{integration}');
"""


def insert(state):
    postgres.query(state, _ROWS.format(
        zoom=ZOOM_ACCOUNT, limited=ZOOM_LIMITED_ACCOUNT, email=FIREFLIES_EMAIL, fireflies_id=_FIREFLIES,
        fireflies=credentials.read(state, "fireflies-endpoint"), otter=credentials.read(state, "otter-endpoint")))
    sealed = gateway.run(state, "seal", "--key-file", credentials.path(state, "integrations.key"),
                         "--integration", _FIREFLIES, stdin=credentials.read(state, "fireflies")).strip()
    postgres.query(state, _SECRET.format(integration=_FIREFLIES, sealed=sealed))


def _hmac(secret, message):
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def _events(state):
    """(platform, path, headers, body) of one fresh event each."""
    unique = uuid.uuid4().hex
    now = int(time.time())
    zoom = json.dumps({
        "event": "recording.completed", "event_ts": now * 1000, "download_token": "demonstration",
        "payload": {"account_id": ZOOM_ACCOUNT, "object": {
            "id": 1234567890, "uuid": unique[:22] + "==", "host_id": "x1yCzABCDEfg23HiJKl4mN", "topic": "Élan 東京",
            "type": 4, "start_time": "2026-01-13T21:44:51Z", "duration": 60, "host_email": "host@demo.example",
            "recording_count": 1, "share_url": "https://zoom.example/rec/share", "recording_files": [
                {"id": str(uuid.uuid4()), "meeting_id": unique[:22] + "==", "file_type": "MP4", "file_size": 282825,
                 "recording_type": "shared_screen_with_speaker_view", "status": "completed",
                 "download_url": "https://zoom.example/rec/download"}]}}}, ensure_ascii=False).encode()
    yield ("zoom", "/webhooks/zoom", {
        "x-zm-request-timestamp": str(now), "x-zm-request-id": str(uuid.uuid4()),
        "x-zm-signature": "v0=" + _hmac(credentials.read(state, "zoom"), f"v0:{now}:".encode() + zoom)}, zoom)
    fireflies = json.dumps({
        "event": "transcript.ready", "timestamp": now * 1000, "transcript_id": unique,
        "transcript_url": f"https://fireflies.example/view/{unique}",
        "meeting": {"title": "Weekly", "date": "2026-01-13T21:44:51Z", "duration": 1800,
                    "participants": [FIREFLIES_EMAIL], "organizer_email": FIREFLIES_EMAIL}}).encode()
    yield ("fireflies", "/webhooks/fireflies", {
        "x-hub-signature": "sha256=" + _hmac(credentials.read(state, "fireflies"), fireflies)}, fireflies)
    otter = json.dumps({
        "meta": {"retrieved_at": "2026-01-13T23:27:47.096395+00:00", "webhook": {
            "name": "All calls", "source_type": "channel", "event": "conversation_completed",
            "source": {"id": "channel", "name": "All calls"}}},
        "data": {"id": unique, "title": "Product launch", "url": f"https://otter.example/u/{unique}",
                 "created_at": "2026-01-13T12:00:00Z",
                 "process_status": {"abstract_summary": "finished", "action_item": "finished", "outline": "finished"},
                 "transcript": {"content": "Jane Doe  0:01\nHello everyone", "format": "txt"}}}).encode()
    yield ("otter", "/webhooks/otter/" + credentials.read(state, "otter-endpoint"), {}, otter)


def _post(state, path, headers, body):
    context = ssl.create_default_context(cafile=state.path("tls", "ca.pem"))
    connection = http.client.HTTPSConnection("127.0.0.1", state.port("nginx"), timeout=5, context=context)
    try:
        connection.request("POST", path, body, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def _record(state, event_id):
    """Of the event: its receipt's place, and the record that Kafka has there."""
    row = wait_for(f"receipt of {event_id}", lambda: postgres.query(
        state, "SELECT kafka_topic, kafka_partition, kafka_offset FROM mcp.webhook_events "
        f"WHERE event_id = '{uuid.UUID(event_id)}'"), 5)
    topic, partition, offset = row.split("\t")
    done = subprocess.run(["kcat", "-b", kafka.bootstrap(state), "-C", "-q", "-J", "-e", "-c", "1", "-t", topic,
                           "-p", partition, "-o", offset], capture_output=True, timeout=15, check=False)
    if done.returncode != 0 or not done.stdout:
        raise Failure(f"{topic}/{partition}@{offset} can't be read: {done.stderr.decode(errors='replace').strip()}")
    record = json.loads(done.stdout)
    pairs = record.get("headers") or []
    return topic, partition, offset, record["payload"].encode(), dict(zip(pairs[::2], pairs[1::2]))


def prove(state):
    """Sends, reads back, prints a table; a difference is a failure."""
    rows = []
    for platform, path, headers, body in _events(state):
        started = time.monotonic()
        status, answer = _post(state, path, headers, body)
        took = (time.monotonic() - started) * 1000
        told = json.loads(answer)
        if status != 200 or told.get("status") != "accepted":
            raise Failure(f"{platform}: an event through nginx was answered {status} {answer.decode()}")
        topic, partition, offset, value, kafka_headers = _record(state, told["webhook_event_id"])
        if value != body:
            raise Failure(f"{platform}: {topic}/{partition}@{offset} does not hold the bytes that were sent")
        if kafka_headers.get("ce_id") != told["webhook_event_id"] or kafka_headers.get("hookgate-platform") != platform:
            raise Failure(f"{platform}: the record's headers are not those of the event: {kafka_headers}")
        rows.append((platform, kafka_headers["ce_type"], f"{took:.0f} ms", f"{topic}/{partition}@{offset}",
                     f"{len(value)} bytes, equal", told["webhook_event_id"]))
    say("one event of each platform went through nginx and came back from Kafka:")
    table([("PLATFORM", "EVENT", "ANSWERED IN", "KAFKA RECORD", "VALUE", "EVENT ID"), *rows])


def table(rows):
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip(), flush=True)
