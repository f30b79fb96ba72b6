"""Deliveries of every kind with a marker in each place that must stay secret, and then a search for them in all that is
written down: logs of gateway, nginx and Postgres, metrics, and security events."""
import contextlib
import json
import os
import time

import signing
from client import exchange
from harness import until

# One for each place, so that a failure says which one leaks. The tokens have the form of real ones.
BODY, QUERY, HEADER, PATH = "MarkerInABody", "MarkerInAQuery", "MarkerInAHeader", "MarkerInAPath"
TOKEN, SIGNATURE, TIMESTAMP = "MarkerInAToken-0123456789", "MarkerInASignature", "MarkerInATimestamp"
MARKERS = (BODY, QUERY, HEADER, PATH, TOKEN, SIGNATURE, TIMESTAMP)


def signed(servers, body, **how):
    return signing.zoom_signed(body, servers.secret("zoom"), **how)


def deliveries(servers, zoom, fireflies, otter):
    """Events by what becomes of them; the words are those of the log."""
    now = int(time.time())
    good = zoom(topic=BODY, agenda=SIGNATURE)
    broken = otter()
    broken.body = b'{"' + BODY.encode() + b'":'
    deep = b"[" * 200 + json.dumps(BODY).encode() + b"]" * 200
    twice = signing.zoom_body(servers.zoom_account, topic=BODY)[:-1] + b',"event":"' + BODY.encode() + b'"}'
    basic = {"authorization": "Bearer " + HEADER, "cookie": "session=" + HEADER, "x-custom": HEADER}
    accepted = zoom(topic=BODY)
    accepted.headers.update(basic)
    return [
        ("accepted", accepted), ("accepted", good), ("duplicate", good), ("accepted", otter()), ("accepted", fireflies()),
        ("signature_mismatch", zoom(secret="wrong", topic=BODY)),
        ("signature_mismatch", fireflies(secret="wrong")),
        ("signature_missing", zoom(topic=BODY).with_header("x-zm-signature", None)),
        ("signature_malformed", zoom(topic=BODY).with_header("x-zm-signature", "v0=" + SIGNATURE)),
        ("signature_malformed", zoom(topic=BODY).with_header("x-zm-signature", SIGNATURE)),
        ("timestamp_malformed", signed(servers, signing.zoom_body(servers.zoom_account, topic=BODY), timestamp=TIMESTAMP)),
        ("timestamp_missing", zoom(topic=BODY).with_header("x-zm-request-timestamp", None)),
        ("timestamp_stale", zoom(topic=BODY, timestamp=now - 4000)),
        ("timestamp_future", zoom(topic=BODY, timestamp=now + 4000)),
        ("unknown_endpoint", otter(token=TOKEN)),
        ("unknown_endpoint", zoom(path="/webhooks/zoom/" + TOKEN, topic=BODY)),
        ("unknown_platform", zoom(path="/webhooks/" + PATH.lower(), topic=BODY)),
        ("unknown_route", zoom(path=f"/{PATH}/{TOKEN}", topic=BODY)),
        ("unknown_workspace", zoom(account="NobodysAccount", topic=BODY)),
        ("unsupported_event", zoom(event="zoomroom.alert", topic=BODY)),
        ("bad_json", broken), ("json_too_deep", signed(servers, deep)), ("json_repeated_key", signed(servers, twice)),
        ("field_missing", zoom(uuid=None, topic=BODY)),
        ("content_type", zoom(topic=BODY).with_header("content-type", "text/" + HEADER)),
        ("compressed", zoom(topic=BODY).with_header("content-encoding", HEADER)),
        ("body_too_large", signed(servers, BODY.encode() * 100000)),
        ("challenge_refused", signed(servers, json.dumps({"event": "endpoint.url_validation", "payload": {
            "plainToken": '{"%s"}' % BODY}}).encode())),
    ]


@contextlib.contextmanager
def refusing(servers, table, event_type):
    """Postgres refuses the rows of one event type, and its error quotes what it was sent."""
    servers.query(f"ALTER TABLE {table} ADD CONSTRAINT no_such CHECK (event_type <> '{event_type}') NOT VALID")
    try:
        yield
    finally:
        servers.query(f"ALTER TABLE {table} DROP CONSTRAINT no_such")


def written(servers):
    """All that is written down, by place."""
    logs = servers.state.path("logs")
    places = {}
    for name in os.listdir(logs):
        with open(os.path.join(logs, name), encoding="utf-8", errors="replace") as file:
            places[name] = file.read()
    places["metrics"] = "".join(views.metrics_text() for views in servers.all_views())
    places["security events"] = repr(servers.query("SELECT * FROM mcp.security_events"))
    places["receipts"] = repr(servers.query("SELECT * FROM mcp.webhook_events ORDER BY received_at DESC LIMIT 1000"))
    return places


def hidden(servers, events):
    """The markers, all secrets, and the signatures that were sent."""
    words = [*MARKERS, PATH.lower(), "token-of-the-recording"]
    words += [servers.secret(name) for name in ("zoom", "fireflies", "otter-endpoint", "fireflies-endpoint", "integrations.key")]
    for event in events:
        words += [event.headers[name].split("=")[-1] for name in ("x-zm-signature", "x-hub-signature")
                  if len(event.headers.get(name, "")) > 60]
    return words


def test_no_secret_is_written_anywhere(servers, zoom, fireflies, otter):
    views = servers.views()
    mark = views.mark()
    cases = deliveries(servers, zoom, fireflies, otter)
    for url in (servers.direct_url(), servers.plain_url(), servers.url):
        made = servers.client(url)
        for _, event in cases:
            made.post(event)
        made.request("GET", otter().path + "?query=" + QUERY)
        made.request("GET", f"/webhooks/zoom?hub.mode=subscribe&hub.verify_token={QUERY}&hub.challenge={QUERY}")
        made.close()
        for raw in (f"POST /{PATH} HTTP/9.9\r\n\r\n", f"GET /{PATH}?{QUERY} HTTP/1.1\r\nhost: a\r\nx: {HEADER * 9000}\r\n\r\n",
                    f"POST /webhooks/otter/{TOKEN} HTTP/1.1\r\nhost: a\r\ncontent-length: x{HEADER}\r\n\r\n{BODY}"):
            exchange(url, raw.encode(), servers.ca, timeout=1)
    with refusing(servers, "mcp.webhook_events", "meeting.ended"):
        made = servers.client(servers.direct_url())
        refused = made.post(zoom(event="meeting.ended", topic=BODY))
        made.close()
    assert refused.status in (200, 503)  # held until Postgres takes it, or refused
    # All of it happened, so the search below has something to miss.
    lines = until("the deliveries' lines", lambda: [line for line in views.lines(mark, "delivery")
                                                    if line.get("event_type") == "meeting.ended"] and views.lines(mark, "delivery"), 5)
    assert {outcome for outcome, _ in cases} <= {line["outcome"] for line in lines}
    time.sleep(1.5)  # nginx writes its log, and a gateway its security events, once a second
    places = written(servers)
    assert {"nginx-access.log", "hookgate-1.log", "postgres.log"} <= places.keys()
    assert "/webhooks/otter" in places["nginx-access.log"] and "no_such" in places["postgres.log"]
    assert "unknown_endpoint" in places["security events"]
    words = hidden(servers, [event for _, event in cases])
    # The word where a platform should be is no secret to nginx; the gateway does not repeat even that.
    places["nginx-access.log"] = places["nginx-access.log"].replace("/webhooks/" + PATH.lower(), "")
    found = {name: [word for word in words if word in text] for name, text in places.items()}
    assert not any(found.values()), {name: words for name, words in found.items() if words}
