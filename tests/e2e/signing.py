"""Events and their signatures, made without the gateway's code: hmac and the vendors' documentation."""
import base64
import hashlib
import hmac
import json
import time
import uuid
from dataclasses import dataclass, field


@dataclass
class Event:
    """A delivery as a platform would send it."""
    platform: str
    path: str
    body: bytes
    headers: dict = field(default_factory=dict)

    def with_header(self, name, value):
        """A copy with one header replaced; None takes it away."""
        headers = {**self.headers, name: value}
        if value is None:
            del headers[name]
        return Event(self.platform, self.path, self.body, headers)


def event_id_of(workspace, platform, event_type, external_id):
    """UUIDv8 of SHA-256 over the four parts, each with its length before it."""
    hashed = hashlib.sha256()
    for part in (workspace, platform, event_type, external_id):
        hashed.update(len(part.encode()).to_bytes(4, "big") + part.encode())
    octets = bytearray(hashed.digest()[:16])
    octets[6] = octets[6] & 0x0F | 0x80
    octets[8] = octets[8] & 0x3F | 0x80
    return str(uuid.UUID(bytes=bytes(octets)))


def digest(secret, message):
    return hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


def zoom_signed(body, secret, timestamp=None, path="/webhooks/zoom"):
    timestamp = str(int(time.time()) if timestamp is None else timestamp)
    return Event("zoom", path, body, {
        "content-type": "application/json; charset=utf-8",
        "x-zm-request-timestamp": timestamp,
        "x-zm-request-id": str(uuid.uuid4()),
        "x-zm-signature": "v0=" + digest(secret, f"v0:{timestamp}:".encode() + body),
    })


def meeting_uuid():
    """As Zoom's: base64 of 16 bytes, so it may hold / and + and ends with ==."""
    return base64.b64encode(uuid.uuid4().bytes).decode()


def zoom_body(account, event="recording.completed", padding=0, **members):
    document = {
        "event": event, "event_ts": int(time.time() * 1000), "download_token": "token-of-the-recording",
        "payload": {"account_id": account, "object": {
            "id": 1234567890, "uuid": meeting_uuid(), "host_id": "x1yCzABCDEfg23HiJKl4mN", "topic": "Élan 東京 🎉",
            "type": 4, "start_time": "2026-01-13T21:44:51Z", "timezone": "America/Los_Angeles", "duration": 60,
            "host_email": "host@demo.example", "share_url": "https://zoom.example/share", "recording_count": 1,
            "recording_files": [{
                "id": str(uuid.uuid4()), "file_type": "MP4", "file_size": 282825, "status": "completed",
                "recording_type": "shared_screen_with_speaker_view",
                "recording_start": "2026-01-13T22:14:57Z", "recording_end": "2026-01-13T23:15:41Z",
                "download_url": "https://zoom.example/download"}],
            **members}}}
    if padding:
        document["payload"]["object"]["notes"] = "x" * padding
    return json.dumps(document, ensure_ascii=False).encode()


def zoom_validation(secret, token="qgg8vlvZRS6UYooatFL8Aw", timestamp=None):
    """Zoom's question whether the address is ours."""
    return zoom_signed(json.dumps({"payload": {"plainToken": token}, "event_ts": int(time.time() * 1000),
                                   "event": "endpoint.url_validation"}).encode(), secret, timestamp)


def fireflies_signed(body, secret, header="x-hub-signature", prefix="sha256=", path="/webhooks/fireflies"):
    return Event("fireflies", path, body, {"content-type": "application/json", header: prefix + digest(secret, body)})


def fireflies_body(email, event="transcript.ready"):
    name = uuid.uuid4().hex
    return json.dumps({
        "event": event, "timestamp": int(time.time() * 1000), "transcript_id": name,
        "transcript_url": f"https://fireflies.example/view/{name}",
        "meeting": {"title": "Weekly", "date": "2026-01-13T21:44:51Z", "duration": 1800, "participants": [email],
                    "organizer_email": email}}).encode()


def fireflies_thin_body(version):
    """As V1 and V2 send it: it names a meeting and nobody."""
    name = uuid.uuid4().hex
    if version == "v1":
        return json.dumps({"meetingId": name, "eventType": "Transcription completed"}).encode()
    return json.dumps({"event": "meeting.transcribed", "timestamp": int(time.time() * 1000), "meeting_id": name,
                       "client_reference_id": str(uuid.uuid4())}).encode()


def otter(token, state="finished", transcript="Jane Doe  0:01\nHello everyone"):
    name = uuid.uuid4().hex
    body = json.dumps({
        "meta": {"retrieved_at": "2026-01-13T23:27:47.096395+00:00", "webhook": {
            "name": "All calls", "source_type": "channel", "event": "conversation_completed",
            "source": {"id": "channel", "name": "All calls"}}},
        "data": {"id": name, "title": "Product launch", "url": f"https://otter.example/u/{name}",
                 "created_at": "2026-01-13T12:00:00Z",
                 "process_status": {"abstract_summary": state, "action_item": state, "outline": state},
                 "transcript": {"content": transcript, "format": "txt"}}}).encode()
    return Event("otter", f"/webhooks/otter/{token}", body, {"content-type": "application/json"})
