"""Postgres is away while Kafka is there: events are held, answered 200 in time, and reach their topic once
when Postgres is back, whichever instances take them over."""
import os
import signal
import subprocess
import threading
import time

import pytest

from load import Load
from harness import until
from test_55_audit import audit  # noqa: F401, the fixture

pytestmark = pytest.mark.faults
RATE = 200


def held(servers, name="hookgate_held_total", **labels):
    return sum(views.metric(name, **labels) for views in servers.all_views())


def stopped(servers):
    servers.stop_postgres(signal.SIGINT)
    return servers.start_postgres


def killed(servers):
    servers.stop_postgres(signal.SIGKILL)
    return servers.start_postgres


def frozen(servers):
    from devtool import process
    leader = servers.pid("postgres")
    pids = [leader, *process.children(leader)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)

    def mend():
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    return mend


def left(servers):
    """What is not taken over or not sent yet, in words; empty = nothing."""
    found = []
    for number, views in enumerate(servers.all_views(), 1):
        for name in ("hookgate_held_events", "hookgate_holding"):
            if views.metric(name):
                found.append(f"{name} of instance {number}: {views.metric(name):g}")
    parked, undecided = servers.query("SELECT count(*), count(undecided_since) FROM mcp.webhook_outbox")[0]
    if parked:
        found.append(f"{parked} parked, {undecided} of them undecided")
    return ", ".join(found)


def all_is_sent(servers, seconds=60):
    try:
        until("all is taken over and sent", lambda: not left(servers), seconds)
    except Exception as failure:
        raise AssertionError(f"{failure}: {left(servers)}") from None


def each_once(servers, results):
    """Every event that was answered 2xx is in its topic once and has one published receipt."""
    answered = {sent.event_id for sent in results if sent.status == 200}
    counts = servers.event_ids()
    missing = [event for event in answered if event not in counts]
    doubled = [event for event in answered if counts.get(event, 0) > 1]
    assert not missing, f"{len(missing)} of {len(answered)} are not in the topic: {missing[:3]}"
    assert not doubled, f"{len(doubled)} of {len(answered)} are there more than once: {doubled[:3]}"
    rows = servers.query("SELECT event_id::text, count(*), min(status) FROM mcp.webhook_events "
                         "WHERE event_id = ANY (%s::uuid[]) GROUP BY 1", list(answered))
    assert {row[0] for row in rows} == answered
    assert all(row[1] == 1 and row[2] == "published" for row in rows), rows[:3]
    assert servers.claims_without_receipt() == 0


@pytest.mark.parametrize("fault", [stopped, killed, frozen])
def test_postgres_is_away(servers, fault):
    before = held(servers, kind="event")
    with Load(servers.url, servers.ca, servers.secret("zoom"), servers.zoom_account, RATE, workers=64) as load:
        time.sleep(1.5)
        mend = fault(servers)
        time.sleep(10)
        mend()
        time.sleep(4)
        results = load.stop()
    slow = [sent for sent in results if sent.seconds > 3]
    assert not slow, f"{len(slow)} of {len(results)} answers took more than 3 s: {slow[:3]}"
    refused = [sent for sent in results if sent.status != 200]
    assert not refused, f"{len(refused)} of {len(results)} were refused: {refused[:5]}"
    assert held(servers, kind="event") - before > RATE * 5, "hardly anything was held"
    all_is_sent(servers)
    each_once(servers, results)
    until("what was taken over is deleted", lambda: not servers.records("webhooks.hold"), 5)


def event_ids_of(answers):
    return [answer.json["webhook_event_id"] for answer in answers]


def test_copies_across_an_outage(servers, zoom):
    """Copies before, during and after; during it on other instances too. Each event is in its topic once."""
    def post_everywhere():
        clients = [servers.client(servers.direct_url(number)) for number in (1, 2, 3)]
        answers = [client.post(event) for event in (known, fresh) for client in clients]
        for client in clients:
            client.close()
        return answers

    known, fresh = zoom(), zoom()
    client = servers.client()
    assert client.post(known).json["status"] == "accepted"
    client.close()
    servers.stop_postgres(signal.SIGINT)
    try:
        during = post_everywhere()
    finally:
        servers.start_postgres()
    assert {(answer.status, answer.json["status"]) for answer in during} == {(200, "accepted")}
    all_is_sent(servers)
    copies = sum(views.metric("hookgate_unheld_total", fate="copy") for views in servers.all_views())
    assert copies >= 5
    after = post_everywhere()
    assert {(answer.status, answer.json["status"]) for answer in after} == {(200, "duplicate")}
    counts = servers.event_ids()
    for event_id in set(event_ids_of(during + after)):
        assert counts[event_id] == 1
        assert [row["status"] for row in servers.receipts(event_id)] == ["published"]


def test_published_but_not_committed(servers, zoom):
    """Kafka acknowledges when Postgres is gone already: those events leave markers and are accepted, and neither
    they nor their copies are published again."""
    before = held(servers, kind="marker")
    clients = [servers.client(servers.direct_url(number % 3 + 1)) for number in range(12)]
    events = [zoom() for _ in clients]
    for client, event in zip(clients, events):
        assert client.post(zoom()).status == 200  # connected
    answers = [None] * len(clients)

    def post(number):
        answers[number] = clients[number].post(events[number])

    threads = [threading.Thread(target=post, args=(number,)) for number in range(len(clients))]
    broker = servers.pid("kafka")
    os.kill(broker, signal.SIGSTOP)
    try:
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        servers.stop_postgres(signal.SIGQUIT)
    finally:
        os.kill(broker, signal.SIGCONT)
    for thread in threads:
        thread.join()
    copies = [client.post(event) for client, event in zip(clients[1:] + clients[:1], events)]
    servers.start_postgres()
    assert [answer.status for answer in answers + copies] == [200] * 24, [answer.json for answer in answers]
    assert max(answer.seconds for answer in answers + copies) < 3
    # A batch of each instance had been published; what waited behind it is held.
    assert held(servers, kind="marker") - before >= 3
    all_is_sent(servers)
    counts = servers.event_ids()
    for event_id in event_ids_of(answers):
        assert counts[event_id] == 1
        row, = servers.receipts(event_id)
        assert row["status"] == "published"
        assert servers.record_at(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]).event_id == event_id
    for client in clients:
        client.close()


def test_both_are_away(servers, zoom):
    """An honest 503 in time; and when Kafka alone is back, events are held within seconds."""
    client = servers.client(servers.direct_url(1))
    assert client.post(zoom()).status == 200
    servers.stop_postgres(signal.SIGINT)
    broker = servers.pid("kafka")
    os.kill(broker, signal.SIGSTOP)
    try:
        answers = [client.post(zoom()) for _ in range(4)]
    finally:
        os.kill(broker, signal.SIGCONT)
    try:
        assert [answer.status for answer in answers] == [503] * 4
        assert all(answer.retry_after and answer.seconds < 3 for answer in answers)
        until("an event is held", lambda: client.post(zoom()).status == 200, 8)
    finally:
        servers.start_postgres()
    all_is_sent(servers)
    client.close()


def test_a_foreign_record_is_passed_over(servers, zoom):
    before = held(servers, "hookgate_held_unreadable_total")
    from devtool import kafka
    subprocess.run(["kcat", "-b", kafka.bootstrap(servers.state), "-P", "-t", "webhooks.hold", "-p", "2"],
                   input=b"not ours", check=True, timeout=30)
    until("it is counted", lambda: held(servers, "hookgate_held_unreadable_total") == before + 1, 15)
    client = servers.client()
    servers.stop_postgres(signal.SIGINT)
    try:
        answers = [client.post(zoom()) for _ in range(8)]
    finally:
        servers.start_postgres()
    client.close()
    assert [answer.status for answer in answers] == [200] * 8
    all_is_sent(servers)
    counts = servers.event_ids()
    assert [counts[event_id] for event_id in event_ids_of(answers)] == [1] * 8


def test_audit_counts_what_is_held(servers, zoom, audit):
    """Between Postgres' return and the taking over: here the gateways are stopped for that long."""
    from devtool import gateway
    client = servers.client()
    servers.stop_postgres(signal.SIGINT)
    assert [client.post(zoom()).status for _ in range(5)] == [200] * 5
    client.close()
    pids = [servers.pid(gateway.name(number)) for number in (1, 2, 3)]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        servers.start_postgres()
        report = audit()
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    assert (report["held"], report["missing"]) == (5, 0), report
    all_is_sent(servers)
    report = audit()
    assert (report["held"], report["missing"], report["doubled"], report["parked"]) == (0, 0, 0, 0), report
    assert report["acknowledged"] == report["in_kafka"] == 5
