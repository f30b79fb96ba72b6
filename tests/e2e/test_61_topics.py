"""Topics that change under the gateway: smaller, gone, made anew. What Kafka refuses for good gets stuck, all
else goes on."""
import json
import secrets

import pytest

from harness import kafka, until

pytestmark = pytest.mark.faults
ZOOM, OTTER = "webhooks.zoom", "webhooks.otter"


def set_largest(servers, topic, size):
    kafka.tool(servers.state, "kafka.admin.ConfigCommand", "--alter", "--entity-type", "topics", "--entity-name", topic,
               "--add-config", f"max.message.bytes={size}")


def test_smaller_topic_and_stuck_events(servers, zoom):
    """max.message.bytes is lowered below the bodies' cap: an instance that starts refuses to serve and says what
    mends it; what is parked and too large gets stuck alone, and `hookgate stuck retry` brings it back."""
    large, small = zoom(notes=secrets.token_hex(60000)), zoom()  # random: records are compressed
    set_largest(servers, ZOOM, 40000)
    try:
        with servers.gateway("strict", wait=False) as strict:
            until("it refuses", lambda: _reasons(strict) == ["kafka: a topic is missing or not durable; the log tells which"],
                  15)
            line = strict.wait_line(0, lambda line: line["event"] == "topic_refused")
            assert "max.message.bytes is 40000" in line["msg"] and "kafka-configs.sh" in line["msg"]
            made = strict.client()
            ids = [made.post(event).json["webhook_event_id"] for event in (large, small)]
            made.close()
        # The other instances last looked before the change: they try.
        until("the large one is stuck", lambda: _state(servers, ids[0]) == "stuck", 20, 0.2)
        until("the small one is published", lambda: _state(servers, ids[1]) == "published", 20, 0.2)
        assert servers.query("SELECT count(*) FROM mcp.webhook_outbox")[0][0] == 0
        listed = servers.operate("stuck", "list")
        assert listed.returncode == 0
        (told,) = [line for line in listed.stdout.decode().splitlines() if ids[0] in line]
        assert "larger than the topic" in told and "zoom" in told
        until("the gauge tells", lambda: servers.views().metric("hookgate_stuck_events") == 1, 5)
        # A copy is a duplicate of something that is kept.
        made = servers.client()
        assert made.post(large).json["status"] == "duplicate"
        # Live, it is refused: a 2xx would promise what only an operator can keep.
        answer = made.post(zoom(notes=secrets.token_hex(60000)))
        assert answer.status == 503 and answer.retry_after > 0
        assert made.post(zoom()).status == 200
        made.close()
    finally:
        set_largest(servers, ZOOM, 1114112)
    wrong = servers.operate("stuck", "retry", "00000000-0000-4000-8000-00000000dead")
    assert wrong.returncode == 1 and b"is not stuck" in wrong.stderr
    back = servers.operate("stuck", "retry")
    assert back.returncode == 0 and back.stdout == b"1 events go back to their topics\n"
    until("it is published", lambda: _state(servers, ids[0]) == "published", 20, 0.2)
    counts = servers.event_ids()
    assert counts[ids[0]] == counts[ids[1]] == 1


@pytest.mark.all_faults
def test_topic_deleted_and_made_anew(servers, otter):
    """While it is gone, events are parked; once it is back they reach it, and so does what comes after."""
    made = servers.client()
    assert made.post(otter()).status == 200
    kafka.tool(servers.state, "org.apache.kafka.tools.TopicCommand", "--delete", "--topic", OTTER)
    try:
        until("it is gone", lambda: OTTER not in kafka.topics(servers.state), 15)
        answers = [made.post(otter()) for _ in range(3)]
        assert {answer.status for answer in answers} == {200}
        ids = [answer.json["webhook_event_id"] for answer in answers]
        assert {_state(servers, event_id) for event_id in ids} == {"parked"}
    finally:
        kafka.tool(servers.state, "org.apache.kafka.tools.TopicCommand", "--create", "--topic", OTTER, "--partitions", "4",
                   "--config", "max.message.bytes=1114112")
    until("they are published", lambda: all(_state(servers, event_id) == "published" for event_id in ids), 60, 0.3)
    until("events go to Kafka again", lambda: _state(servers, made.post(otter()).json["webhook_event_id"]) == "published",
          15, 0.3)
    counts = servers.event_ids(OTTER)
    assert [counts[event_id] for event_id in ids] == [1] * 3
    made.close()


@pytest.mark.all_faults
def test_what_waits_for_a_topic_that_is_no_longer_configured(servers, zoom):
    """kafka.topic was changed while events were parked: they still go where they were taken for."""
    former = "webhooks.former"
    kafka.tool(servers.state, "org.apache.kafka.tools.TopicCommand", "--create", "--topic", former, "--partitions", "4")
    with servers.without_kafka():
        made = servers.client()
        event_id = made.post(zoom()).json["webhook_event_id"]
        made.close()
        assert _state(servers, event_id) == "parked"
        for table in ("webhook_outbox", "webhook_events"):
            servers.query(f"UPDATE mcp.{table} SET kafka_topic = %s WHERE event_id = %s", former, event_id)
    until("it is published", lambda: _state(servers, event_id) == "published", 60, 0.3)
    assert servers.event_ids(former) == {event_id: 1}
    assert event_id not in servers.event_ids()


def _reasons(gateway):
    try:
        answer = gateway.admin("/readyz")
    except OSError:
        return None
    return json.loads(answer.raw).get("reasons") if answer.status == 503 else []


def _state(servers, event_id):
    return servers.receipts(event_id)[0]["status"]
