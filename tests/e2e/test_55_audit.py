"""`hookgate audit`: receipts joined with the topic, and every way in which they can disagree."""
import json
import subprocess
import uuid

import pytest

from harness import kafka, stamp


def send(servers, client, zoom, count):
    return [client.post(zoom()).json["webhook_event_id"] for _ in range(count)]


def forge_record(servers, event_id, received=None):
    subprocess.run(["kcat", "-b", kafka.bootstrap(servers.state), "-P", "-t", "webhooks.zoom", "-p", "0",
                    "-H", f"ce_id={event_id}", "-H", f"hookgate-received-at={received or stamp()}"], input=b"x", check=True,
                   timeout=30)


def test_all_is_well(servers, client, zoom, audit):
    send(servers, client, zoom, 20)
    told = audit()
    assert (told["acknowledged"], told["in_kafka"]) == (20, 20)
    assert not any(told[word] for word in ("missing", "doubled", "parked", "held", "stuck", "unclaimed", "expired"))


def test_text(servers, client, zoom, audit):
    send(servers, client, zoom, 1)
    done = audit("--since", "1m", status=0)
    assert b"missing 0, doubled " in done.stdout.splitlines()[-1]


def test_a_receipt_without_a_record_is_missing(servers, client, zoom, audit):
    event_id, = send(servers, client, zoom, 1)
    invented = str(uuid.uuid4())
    servers.query("INSERT INTO mcp.webhook_events SELECT %s, workspace_id, integration_id, platform, event_type,"
                  " external_id, body_sha256, body_size, now(), kafka_topic, kafka_partition, kafka_offset, status"
                  " FROM mcp.webhook_events WHERE event_id = %s", invented, event_id)
    try:
        told = audit(status=1)
        assert (told["acknowledged"], told["in_kafka"], told["missing"]) == (2, 1, 1)
        assert told["missing_ids"] == [invented]
    finally:
        servers.query("DELETE FROM mcp.webhook_events WHERE event_id = %s", invented)


WAITING = {
    "parked": ("mcp.webhook_outbox", "(event_id, received_at, kafka_topic, record_key, record_headers, body, record_time,"
               # The drainer leaves it alone.
               " undecided_since) VALUES (%s, now(), 'webhooks.zoom', 'k', '', 'x', now(), now() + interval '1 hour')"),
    "stuck": ("mcp.webhook_stuck", "(event_id, received_at, kafka_topic, record_key, record_headers, body, reason)"
              " VALUES (%s, now(), 'webhooks.zoom', 'k', '', 'x', 'a test')"),
}


@pytest.mark.parametrize("status", WAITING)
def test_what_waits_and_is_not_kept_is_missing(servers, client, zoom, audit, status):
    event_id, = send(servers, client, zoom, 1)
    invented, (table, row) = str(uuid.uuid4()), WAITING[status]
    servers.query(f"INSERT INTO {table} {row}", invented)
    servers.query("INSERT INTO mcp.webhook_events SELECT %s, workspace_id, integration_id, platform, event_type,"
                  " external_id, body_sha256, body_size, now(), kafka_topic, NULL, NULL, %s"
                  " FROM mcp.webhook_events WHERE event_id = %s", invented, status, event_id)
    try:
        told = audit()
        assert (told["acknowledged"], told["in_kafka"], told[status], told["missing"]) == (2, 1, 1, 0)
        servers.query(f"DELETE FROM {table} WHERE event_id = %s", invented)
        told = audit(status=1)
        assert (told["acknowledged"], told["in_kafka"], told[status], told["missing"]) == (2, 1, 0, 1)
        assert told["missing_ids"] == [invented]
        forge_record(servers, invented)
        told = audit()
        assert (told["in_kafka"], told[status], told["missing"], told["filled"]) == (2, 0, 0, 0)
    finally:
        servers.query(f"DELETE FROM {table} WHERE event_id = %s", invented)
        servers.query("DELETE FROM mcp.webhook_events WHERE event_id = %s", invented)


def test_a_record_that_comes_twice_is_doubled(servers, client, zoom, audit):
    event_id, _ = send(servers, client, zoom, 2)
    forge_record(servers, event_id)
    told = audit()
    assert (told["doubled"], told["doubled_ids"], told["missing"]) == (1, [event_id], 0)


def test_a_record_without_a_receipt_is_unclaimed(servers, client, zoom, audit):
    send(servers, client, zoom, 1)
    forge_record(servers, str(uuid.uuid4()))
    forge_record(servers, str(uuid.uuid4()), "2001-01-01T00:00:00.000000Z")  # before the audit's beginning
    forge_record(servers, "not-an-id")
    told = audit()
    assert (told["acknowledged"], told["unclaimed"], told["missing"]) == (1, 1, 0)


def test_an_unknown_offset_is_filled_in(servers, client, zoom, audit):
    event_id, = send(servers, client, zoom, 1)
    before = servers.receipts(event_id)[0]["kafka_offset"]
    servers.query("UPDATE mcp.webhook_events SET kafka_offset = NULL WHERE event_id = %s", event_id)
    assert audit()["filled"] == 1
    assert servers.receipts(event_id)[0]["kafka_offset"] == before
    assert audit()["filled"] == 0


@pytest.mark.parametrize("arguments", [(), ("--since",), ("--since", "soon"), ("--since", "10"), ("--since", "1m", "x"),
                                       ("--since", "99999999999999d")])
def test_wrong_usage(servers, arguments):
    done = servers.command("audit", *arguments)
    assert done.returncode == 2 and b"hookgate audit: " in done.stderr


def test_servers_that_do_not_answer(servers, audit, tmp_path):
    for section, key, value in (("postgres", "conninfo", "host=127.0.0.1 port=1 dbname=x"),):
        config = servers.config({"https": 0, "plain": 0, "admin": 0}, {section: {key: value}})
        path = tmp_path / "hookgate.yaml"
        path.write_text(json.dumps(config))
        done = servers.command("audit", "--since", "1m", "--config", path)
        assert done.returncode == 1 and b"Postgres" in done.stderr
