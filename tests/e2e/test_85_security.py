"""mcp.security_events: what is written, how soon, and that a flood makes a handful of rows."""
import http.client
import json
import ssl
import time
import urllib.parse
from datetime import datetime, timezone

import pytest

import signing
from harness import until

pytestmark = pytest.mark.tsan
SOON = 2


@pytest.fixture
def own(servers):
    """A gateway of the test's own, so that its counters and sources are known; and an empty table."""
    servers.query("DELETE FROM mcp.security_events")
    with servers.gateway("watched") as made:
        yield made


def rows(servers, **wanted):
    """Rows with these values; `source` as text."""
    found = servers.query("SELECT hour, kind, outcome, platform, integration_id::text, workspace_id, host(source) AS source, "
                          "count, first_seen, last_seen FROM mcp.security_events ORDER BY first_seen")
    return [row for row in map(dict, found) if wanted.items() <= row.items()]


def wait_row(servers, **wanted):
    return until(f"a row with {wanted}", lambda: rows(servers, **wanted), SOON, 0.02)[0]


def post_from(servers, gateway, address, event):
    """Sends from another address of loopback."""
    port = urllib.parse.urlsplit(gateway.url).port
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=8, source_address=(address, 0),
                                             context=ssl.create_default_context(cafile=servers.ca))
    try:
        connection.request("POST", event.path, event.body, event.headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def test_a_forged_signature_is_written_soon(servers, own, zoom):
    before = datetime.now(timezone.utc)
    assert post_from(servers, own, "127.0.0.7", zoom(secret="wrong"))[0] == 401
    row = wait_row(servers, kind="signature", source="127.0.0.7")
    assert (row["outcome"], row["platform"], row["count"]) == ("signature_mismatch", "zoom", 1)
    assert row["integration_id"] is None and row["workspace_id"] is None
    assert before <= row["first_seen"] == row["last_seen"] <= datetime.now(timezone.utc)
    assert row["hour"] == row["first_seen"].replace(minute=0, second=0, microsecond=0)


def test_every_kind_has_its_row(servers, own, zoom, fireflies, otter):
    made = own.client()
    integration, workspace, endpoint = servers.query(
        "SELECT integration_id::text, workspace_id, endpoint_token FROM core.integrations "
        "WHERE platform = 'fireflies' AND endpoint_token IS NOT NULL LIMIT 1")[0]
    known = zoom()
    assert made.post(known).json["status"] == "accepted"
    assert made.post(known).json["status"] == "duplicate"
    now = int(time.time())
    sent = {
        "signature_missing": zoom().with_header("x-zm-signature", None),
        "signature_malformed": zoom().with_header("x-zm-signature", "v0=00"),
        "timestamp_stale": zoom(timestamp=now - 4000),
        "timestamp_future": zoom(timestamp=now + 4000),
        "timestamp_missing": zoom().with_header("x-zm-request-timestamp", None),
        "unknown_endpoint": otter(token="NobodysToken0123456789"),
        "signature_mismatch": fireflies(secret="wrong", path=f"/webhooks/fireflies/{endpoint}"),
    }
    for outcome, event in sent.items():
        assert made.post(event).status == (404 if outcome == "unknown_endpoint" else 401), outcome
    made.close()
    for outcome in sent:
        assert wait_row(servers, outcome=outcome)["count"] == 1
    assert wait_row(servers, outcome="timestamp_stale")["kind"] == "timestamp"
    assert wait_row(servers, kind="endpoint", outcome="unknown_endpoint", platform="otter")
    replay = wait_row(servers, kind="replay", outcome="duplicate", platform="zoom")
    assert replay["count"] == 1 and replay["source"] == "127.0.0.1"
    endpoints = wait_row(servers, outcome="signature_mismatch", platform="fireflies")
    assert (endpoints["integration_id"], endpoints["workspace_id"]) == (integration, workspace)
    assert not [row for row in rows(servers) if row["outcome"] == "accepted"]


def test_challenges(servers, own):
    """Answered, refused for its token, and unverified: that one is a bad signature, and nothing is signed."""
    made = own.client()
    assert "encryptedToken" in made.post(signing.zoom_validation(servers.secret("zoom"))).json
    assert made.post(signing.zoom_validation(servers.secret("zoom"), token='{"event":"x"}')).status == 400
    forged = made.post(signing.zoom_validation("wrong"))
    made.close()
    assert forged.status == 401
    digest = signing.digest(servers.secret("zoom"), b"qgg8vlvZRS6UYooatFL8Aw")
    assert b"encryptedToken" not in forged.raw and digest.encode() not in forged.raw
    assert wait_row(servers, kind="challenge", outcome="challenge")["count"] == 1
    assert wait_row(servers, kind="challenge", outcome="challenge_refused")["count"] == 1
    assert wait_row(servers, kind="signature", outcome="signature_mismatch", platform="zoom")["count"] == 1


def test_a_flood_makes_a_handful_of_rows(servers, own):
    """10,000 forged requests."""
    done = servers.command("send", "zoom", "--url", own.plain_url, "--secret-file", servers.secret_file("zoom"),
                           "--count", 10000, "--bad-signature-rate", 1, "--concurrency", 16, "--json", timeout=120)
    assert json.loads(done.stdout)["sent"] == 10000, done.stdout
    until("all of them in the table", lambda: sum(row["count"] for row in rows(servers)) == 10000, SOON)
    found = rows(servers)
    assert len(found) <= 4, found  # an hour may end in between
    assert {(row["kind"], row["platform"], row["source"]) for row in found} == {("signature", "zoom", "127.0.0.1")}
    assert own.metric("hookgate_security_events_total", fate="written") == 10000
    assert own.metric("hookgate_security_events_total", fate="dropped") == 0


def test_a_limited_source_is_still_counted(servers, zoom):
    """Beyond the limit the log falls silent and the sender is told to come later; the table still has it all."""
    servers.query("DELETE FROM mcp.security_events")
    with servers.gateway("limited", {"threads": 1, "limits": {"failed_signatures": 20}}) as limited:
        made = limited.client()
        answers = [made.post(zoom(secret="wrong")) for _ in range(50)]
        made.close()
        assert [answer.status for answer in answers[:10]] == [401] * 10 and answers[-1].status != 401
        until("all of them in the table", lambda: sum(row["count"] for row in rows(servers, kind="signature")) == 50, SOON)
        assert sum(row["count"] for row in rows(servers, outcome="signature_mismatch")) >= 20
        assert sum(row["count"] for row in rows(servers, kind="signature", outcome="source_limited")) >= 10


def test_a_clean_stop_loses_none(servers, own, zoom):
    made = own.client()
    for _ in range(5):
        made.post(zoom(secret="wrong"))
    made.close()
    assert own.terminate() == 0
    assert sum(row["count"] for row in rows(servers, outcome="signature_mismatch")) == 5


def test_many_sources_are_bounded(servers, own, zoom):
    """More addresses than a loop's table holds within a second: the rest is in the row of other sources."""
    event = zoom(secret="wrong")
    for number in range(600):
        assert post_from(servers, own, f"127.1.{number // 200}.{number % 200 + 1}", event)[0] == 401
    until("all of them in the table", lambda: sum(row["count"] for row in rows(servers)) == 600, SOON)
    written = own.metric("hookgate_security_events_total", fate="written")
    merged = own.metric("hookgate_security_events_total", fate="merged")
    others = [row for row in rows(servers) if row["source"] is None]
    assert written == 600 and sum(row["count"] for row in others) == merged


@pytest.mark.faults
def test_postgres_away(servers, own, zoom):
    """What is sighted meanwhile is kept and written later; refusals stay as quick as they are."""
    made = own.client()
    made.post(zoom(secret="wrong"))
    wait_row(servers, outcome="signature_mismatch")
    with servers.without_postgres():
        until("the connection is missed", lambda: own.metric("hookgate_store_lanes_ready") == 0, 10)
        answers = [made.post(zoom(secret="wrong")) for _ in range(200)]
        time.sleep(2.5)
        answers += [made.post(zoom(secret="wrong")) for _ in range(200)]
    made.close()
    assert {answer.status for answer in answers} == {401}
    assert max(answer.seconds for answer in answers) < 1
    until("all of them in the table", lambda: sum(row["count"] for row in rows(servers)) == 401, 8)
    assert own.metric("hookgate_security_events_total", fate="dropped") == 0
