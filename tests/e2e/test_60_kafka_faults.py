"""Kafka is stopped, killed and frozen under load: until parking exists, honest refusals in time."""
import os
import signal
import time

import pytest

from harness import until
from test_50_postgres_faults import back_within, honest, in_time, kept, under_load

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["stopped", "killed"])
def test_kafka_gone(servers, number):
    def fault():
        servers.stop_kafka(number)
        return servers.start_kafka

    results, broken, returned = under_load(servers, fault)
    in_time(results)
    honest(results)
    assert any(sent.status == 503 and sent.at > broken for sent in results), "the outage was not noticed"
    back_within(servers, results, returned)
    kept(servers, results)


def test_kafka_frozen(servers):
    """SIGSTOP: the connection stays open and nothing is acknowledged. What was in flight may be written
    when the broker wakes up: it was refused, so it may come again, with the same id, and is counted."""
    pid = servers.pid("kafka")
    doubles = sum(v.metric("hookgate_possible_doubles_total") for v in servers.all_views())

    def fault():
        os.kill(pid, signal.SIGSTOP)
        return lambda: os.kill(pid, signal.SIGCONT)

    results, broken, returned = under_load(servers, fault)
    in_time(results)
    honest(results)
    assert any(sent.status == 503 and sent.at > broken for sent in results), "the outage was not noticed"
    back_within(servers, results, returned)
    counts = kept(servers, results)
    answered = {sent.event_id for sent in results if sent.status == 200}
    twice = sum(count - 1 for event_id, count in counts.items() if event_id in answered)
    counted = sum(v.metric("hookgate_possible_doubles_total") for v in servers.all_views()) - doubles
    assert twice <= counted, f"{twice} events are in the topic again, {counted} were counted as possible"


def test_refused_events_are_taken_after_the_outage(servers, zoom):
    """The same event, refused during the outage, is accepted afterwards, once."""
    events = [zoom(event="meeting.started") for _ in range(20)]
    made = servers.client()
    servers.stop_kafka()
    try:
        answers = [made.post(event) for event in events[:3]]
        assert [answer.status for answer in answers] == [503] * 3
        assert all(answer.retry_after for answer in answers)
        assert servers.claims_without_receipt() == 0
    finally:
        servers.start_kafka()
    told = [until("an answer of 200", lambda e=event: _taken(made.post(e)), 5) for event in events]
    assert {answer.json["status"] for answer in told[3:]} == {"accepted"}
    counts = servers.event_ids()
    assert all(counts.get(answer.json["webhook_event_id"], 0) >= 1 for answer in told)
    assert all(counts[answer.json["webhook_event_id"]] == 1 for answer in told[3:])
    made.close()


def _taken(answer):
    assert answer.status in (200, 503), answer.raw
    return answer if answer.status == 200 else None
