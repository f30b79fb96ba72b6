"""Postgres is away while Kafka is there: events are held, answered 200 in time, and reach their topic once
when Postgres is back, whichever instances take them over."""
import contextlib
import hashlib
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
    if not found:  # the gauges are as of each instance's last look; what was taken over is deleted
        found += [f"{len(records)} records in the holding topic" for records in [servers.records("webhooks.hold")] if records]
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


@pytest.mark.parametrize("fault", [stopped, pytest.param(killed, marks=pytest.mark.all_faults), frozen])
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


@contextlib.contextmanager
def refusing(servers, event, table="mcp.webhook_events", condition="NEW.body_sha256 = %s"):
    """Postgres refuses the row of this one event, as an operator's trigger might."""
    name = "balk_" + table.rpartition("_")[2]
    servers.query(f"CREATE FUNCTION public.{name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
                  " RAISE data_exception USING MESSAGE = 'not this one'; END$$")
    try:
        servers.query(f"CREATE TRIGGER balk BEFORE INSERT ON {table} FOR EACH ROW WHEN ({condition})"
                      f" EXECUTE FUNCTION public.{name}()", hashlib.sha256(event.body).digest())
        yield
    finally:
        servers.query(f"DROP FUNCTION public.{name}() CASCADE")


def stuck(servers, *arguments):
    from devtool import gateway
    done = servers.command("stuck", *arguments[:1], "--config", gateway.configure(servers.state, 1), *arguments[1:])
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def post_all(servers, events):
    """To all instances, and so to all partitions."""
    clients = [servers.client(servers.direct_url(number)) for number in (1, 2, 3)]
    answers = [clients[number % 3].post(event) for number, event in enumerate(events)]
    for client in clients:
        client.close()
    return answers


def is_there_once(servers, event_ids):
    counts = servers.event_ids()
    assert [counts.get(event_id, 0) for event_id in event_ids] == [1] * len(event_ids)
    for event_id in event_ids:
        row, = servers.receipts(event_id)
        assert row["status"] == "published"
        assert servers.record_at(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"]).event_id == event_id


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


def test_what_postgres_refuses_is_set_aside(servers, zoom, audit):
    """One held event that Postgres refuses for what it is gets stuck alone; the others go on, its copies are
    duplicates, and `hookgate stuck retry` brings it to its topic once."""
    poison, others = zoom(), [zoom() for _ in range(30)]
    before = held(servers, "hookgate_unheld_total", fate="refused")
    with refusing(servers, poison):
        servers.stop_postgres(signal.SIGINT)
        try:
            answers = post_all(servers, [*others[:15], poison, *others[15:], poison])
        finally:
            servers.start_postgres()
        assert [answer.status for answer in answers] == [200] * 32
        ids = event_ids_of(answers)
        refused = ids.pop(15)
        assert ids.pop() == refused
        all_is_sent(servers)
        is_there_once(servers, ids)
        assert held(servers, "hookgate_unheld_total", fate="refused") - before == 1
        until("the gauge tells", lambda: servers.views().metric("hookgate_stuck_events") == 1, 5)
        status, told, _ = stuck(servers, "list")
        line, = told.splitlines()
        assert status == 0 and line.startswith(refused) and "22000: not this one" in line and "zoom" in line
        report = audit()
        assert (report["stuck"], report["missing"], report["doubled"], report["held"]) == (1, 0, 0, 0), report
        assert (report["acknowledged"], report["in_kafka"], report["unclaimed"]) == (31, 30, 0), report
        assert servers.query("SELECT mcp.find_unaccounted()")[0][0] == 0
        assert post_all(servers, [poison])[0].json["status"] == "duplicate"
        status, told, why = stuck(servers, "retry")
        assert status == 1 and "not this one" in why and f"{refused} stays stuck" in why
    assert stuck(servers, "retry", refused)[:2] == (0, "1 events go back to their topics\n")
    all_is_sent(servers)
    is_there_once(servers, [refused])
    assert post_all(servers, [poison])[0].json["status"] == "duplicate"
    assert audit()["stuck"] == 0 and servers.claims_without_receipt() == 0


def test_a_live_event_that_postgres_refuses(servers, zoom, audit):
    """Kafka has it when Postgres refuses its receipt: it leaves a marker, which is set aside, and the gate opens."""
    poison, lanes = zoom(), held(servers, "hookgate_store_lanes_ready")
    with refusing(servers, poison):
        answer, = post_all(servers, [poison])
        assert answer.status == 200 and answer.seconds < 3
        refused = answer.json["webhook_event_id"]
        until("it is set aside", lambda: refused in stuck(servers, "list")[1], 10)
        until("all lanes are back", lambda: held(servers, "hookgate_store_lanes_ready") == lanes and not left(servers), 10)
        answers = post_all(servers, [zoom() for _ in range(6)] + [poison])
        assert [each.json["status"] for each in answers] == ["accepted"] * 6 + ["duplicate"]
        assert servers.event_ids()[refused] == 1
        all_is_sent(servers)
        report = audit()
        assert (report["missing"], report["doubled"], report["unclaimed"], report["in_kafka"]) == (0, 0, 0, 7), report
    assert stuck(servers, "retry")[:2] == (0, "1 events go back to their topics\n")
    is_there_once(servers, [refused, *event_ids_of(answers)])


def test_what_can_not_even_be_set_aside_waits(servers, zoom):
    """Then its partition stays where it is, which is told; the others go on. Nothing is lost."""
    poison, others = zoom(), [zoom() for _ in range(30)]
    with refusing(servers, poison), refusing(servers, poison, "mcp.webhook_refused"):
        servers.stop_postgres(signal.SIGINT)
        try:
            answers = post_all(servers, [*others, poison])
        finally:
            servers.start_postgres()
        assert [answer.status for answer in answers] == [200] * 31
        *ids, refused = event_ids_of(answers)
        until("an instance tells", lambda: held(servers, "hookgate_held_blocked_partitions") > 0, 15)
        until("events of other partitions are sent", lambda: len(set(ids) & set(servers.event_ids())) > 10, 15, 0.5)
        assert not servers.receipts(refused) and not servers.claims(refused)
    all_is_sent(servers)
    is_there_once(servers, [*ids, refused])
    assert held(servers, "hookgate_held_blocked_partitions") == 0


def test_a_refused_event_is_given_up(servers, zoom):
    """`hookgate stuck drop`: as if it had never come."""
    poison = zoom()
    with refusing(servers, poison):
        servers.stop_postgres(signal.SIGINT)
        try:
            refused, = event_ids_of(post_all(servers, [poison]))
        finally:
            servers.start_postgres()
        until("it is set aside", lambda: refused in stuck(servers, "list")[1], 15)
        status, _, why = stuck(servers, "drop")
        assert status == 2 and "drop needs" in why
        assert stuck(servers, "drop", refused) == (0, "1 events are dropped\n", "")
    assert stuck(servers, "list") == (0, "", "")
    status, told, why = stuck(servers, "drop", refused)
    assert (status, told) == (1, "0 events are dropped\n") and f"{refused} is not stuck" in why
    assert post_all(servers, [poison])[0].json["status"] == "accepted"
    is_there_once(servers, [refused])
