"""What `hookgate send` posts is what `hookgate verify` takes, for each platform."""
import json
import os
import re
import socketserver
import threading

import pytest

from harness import ROOT
from judging import SCHEMES, refused, run


class Recorder(socketserver.ThreadingTCPServer):
    """Keeps the bytes of each request and answers as a gateway would that takes it."""
    allow_reuse_address = daemon_threads = True

    def __init__(self):
        self.requests = []
        super().__init__(("127.0.0.1", 0), Connection)


class Connection(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            head = [line]
            while head[-1] not in (b"\r\n", b""):
                head.append(self.rfile.readline())
            size = next(int(h.split(b":")[1]) for h in head if h.lower().startswith(b"content-length:"))
            self.server.requests.append(b"".join(head) + self.rfile.read(size))
            told = b'{"status":"accepted","external_id":"any"}'
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
                             b"Content-Length: %d\r\n\r\n" % len(told) + told)


@pytest.fixture
def recorder():
    with Recorder() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


PLATFORMS = sorted(name for name in os.listdir(os.path.join(ROOT, "platforms"))
                   if os.path.exists(os.path.join(ROOT, "platforms", name, "platform.yaml")))


def sample_secret(platform):
    return os.path.join(ROOT, "platforms", platform, "samples", "secret")


def send(recorder, platform, *more):
    """Sends; returns the requests that came."""
    recorder.requests.clear()
    token = "/sampleToken_4f9b2c7e1d8a6305" if platform == "otter" else ""
    done = run("send", platform, "--url", f"http://127.0.0.1:{recorder.server_address[1]}/webhooks/{platform}{token}",
               *([] if platform == "otter" else ["--secret-file", sample_secret(platform)]), "--json", *more)
    assert done.stdout, done.stderr
    return done.returncode, list(recorder.requests)


def judged(platform, request):
    done = run("verify", platform, "--secret-file", sample_secret(platform), "-", stdin=request)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_send_makes_fresh_events(recorder, platform):
    status, requests = send(recorder, platform, "--count", 40)
    assert status == 0 and len(requests) == 40
    told = [judged(platform, request) for request in requests]
    for exit_status, verdict in told:
        assert exit_status == 0 and verdict["answer"]["body"]["status"] == "accepted", verdict
    assert len({verdict["event_id"] for _, verdict in told}) == 40
    assert len({verdict["event_type"] for _, verdict in told}) >= 2


@pytest.mark.parametrize("platform", [name for name in PLATFORMS if name != "otter"])
def test_send_spoils_signatures(recorder, platform):
    _, requests = send(recorder, platform, "--count", 5, "--bad-signature-rate", 1)
    assert len(requests) == 5
    for request in requests:
        refused(judged(platform, request), "SIGNATURE_MISMATCH")


@pytest.mark.parametrize("platform", PLATFORMS)
def test_send_repeats_events(recorder, platform):
    status, requests = send(recorder, platform, "--count", 40, "--duplicate-rate", 0.7, "--seed", 7)
    assert status == 0
    ids = [judged(platform, request)[1]["event_id"] for request in requests]
    assert None not in ids and 1 < len(set(ids)) < 30


@pytest.mark.parametrize("platform, event", [
    ("stripe", "invoice.paid"), ("stripe", "radar.early_fraud_warning.created"), ("slack", "pin_added"),
    ("github", "gollum"), ("standard-webhooks", "user.deleted"), ("support-rag", "job.progress")])
def test_send_of_one_type(recorder, platform, event):
    status, requests = send(recorder, platform, "--count", 3, "--event", event)
    assert status == 0
    for request in requests:
        assert judged(platform, request)[1]["event_type"] == event


def test_send_signs_as_the_vendor_says(recorder):
    """Not only as verify reads it: the digest is computed here."""
    for name in ("zoom", "slack", "stripe", "github"):
        scheme = SCHEMES[name]
        with open(sample_secret(name), encoding="utf-8") as file:
            secret = file.read().strip()
        for request in send(recorder, name, "--count", 10)[1]:
            head, body = request.split(b"\r\n\r\n", 1)
            fields = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
            timestamp = fields.get("x-zm-request-timestamp") or fields.get("x-slack-request-timestamp")
            if name == "stripe":
                timestamp = re.search("t=([0-9]+)", fields["stripe-signature"])[1]
            assert scheme.digest(secret, body, timestamp) in str(fields)
