"""Postgres is away while Kafka is there: events are held, answered 200 in time, and reach their topic once
when Postgres is back, whichever instances take them over."""
import contextlib
import hashlib
import signal
import subprocess
import threading
import time

import pytest

from harness import gateway, kafka, until
from load import all_is_sent, all_taken, each_once, left, under_load

pytestmark = pytest.mark.faults
RATE = 200


FAULTS = {
    "stopped": lambda servers: servers.without_postgres(),
    "killed": lambda servers: servers.without_postgres(signal.SIGKILL),
    "frozen": lambda servers: servers.frozen("postgres"),
}


@pytest.mark.parametrize("fault", ["stopped", *(pytest.param(name, marks=pytest.mark.all_faults) for name in ("killed", "frozen"))])
def test_postgres_is_away(servers, fault):
    before = servers.metric("hookgate_held_total", kind="event")
    results, _ = under_load(servers, FAULTS[fault](servers), outage=10, after=4, rate=RATE)
    all_taken(results)
    assert servers.metric("hookgate_held_total", kind="event") - before > RATE * 5, "hardly anything was held"
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
    done = servers.operate("stuck", *arguments)
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def post_all(servers, events):
    """To all instances, and so to all partitions."""
    clients = [servers.client(servers.direct_url(number)) for number in (1, 2, 3)]
    answers = [clients[number % 3].post(event) for number, event in enumerate(events)]
    for client in clients:
        client.close()
    return answers


def is_there_once(servers, event_ids):
    all_is_sent(servers)
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
    with servers.without_postgres():
        during = post_everywhere()
    assert {(answer.status, answer.json["status"]) for answer in during} == {(200, "accepted")}
    all_is_sent(servers)
    copies = servers.metric("hookgate_unheld_total", fate="copy")
    assert copies >= 5
    after = post_everywhere()
    assert {(answer.status, answer.json["status"]) for answer in after} == {(200, "duplicate")}
    counts = servers.event_ids()
    for event_id in set(event_ids_of(during + after)):
        assert counts[event_id] == 1
        assert [row["status"] for row in servers.receipts(event_id)] == ["published"]


def publish_without_postgres(servers, zoom):
    """Kafka acknowledges when Postgres is gone already. Returns clients, events and answers."""
    clients = [servers.client(servers.direct_url(number % 3 + 1)) for number in range(12)]
    events = [zoom() for _ in clients]
    for client, event in zip(clients, events):
        assert client.post(zoom()).status == 200  # connected
    answers = [None] * len(clients)

    def post(number):
        answers[number] = clients[number].post(events[number])

    threads = [threading.Thread(target=post, args=(number,)) for number in range(len(clients))]
    with servers.frozen("kafka"):
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        servers.stop_postgres(signal.SIGQUIT)
    for thread in threads:
        thread.join()
    return clients, events, answers


def test_published_but_not_committed(servers, zoom):
    """Such events leave markers and are accepted, and neither they nor their copies are published again."""
    before = servers.metric("hookgate_held_total", kind="marker")
    clients, events, answers = publish_without_postgres(servers, zoom)
    copies = [client.post(event) for client, event in zip(clients[1:] + clients[:1], events)]
    servers.start_postgres()
    assert [answer.status for answer in answers + copies] == [200] * 24, [answer.json for answer in answers]
    assert max(answer.seconds for answer in answers + copies) < 3
    # A batch of each instance had been published; what waited behind it is held.
    assert servers.metric("hookgate_held_total", kind="marker") - before >= 3
    is_there_once(servers, event_ids_of(answers))
    for client in clients:
        client.close()


@pytest.mark.all_faults
def test_a_marker_that_meets_a_copys_claim_is_counted(servers, zoom):
    """Two instances published, and the other one's claim came first. Its own marker, twice, is no double."""
    answer, = post_all(servers, [zoom()])
    row, = servers.receipts(answer.json["webhook_event_id"])
    record = servers.record_at(row["kafka_topic"], row["kafka_partition"], row["kafka_offset"])
    received, = servers.query("SELECT (extract(epoch FROM received_at) * 1000000)::int8 FROM mcp.webhook_events "
                              "WHERE event_id = %s", record.event_id)[0]

    def leave_marker(offset):
        own = {"topic": row["kafka_topic"], "received": received, "partition": row["kafka_partition"], "offset": offset,
               "size": row["body_size"], "digest": row["body_sha256"].hex()}
        headers = [f"{name}={value}" for name, value in record.headers] + [
            f"hookgate-held-{name}={value}" for name, value in own.items()]
        marked = servers.metric("hookgate_unheld_total", fate="marked")
        subprocess.run(["kcat", "-b", kafka.bootstrap(servers.state), "-P", "-t", "webhooks.hold.markers", "-p", "0",
                        *(word for header in headers for word in ("-H", header))], input=b"x", check=True, timeout=30)
        until("it is applied", lambda: servers.metric("hookgate_unheld_total", fate="marked") == marked + 1, 15)
        return servers.metric("hookgate_possible_doubles_total", cause="store_lost")

    before = leave_marker(row["kafka_offset"])
    assert leave_marker(row["kafka_offset"]) == before
    assert leave_marker(row["kafka_offset"] + 1000) == before + 1
    assert servers.receipts(record.event_id) == [row]


def test_both_are_away(servers, zoom):
    """An honest 503 in time; and when Kafka alone is back, events are held within seconds."""
    client = servers.client(servers.direct_url(1))
    assert client.post(zoom()).status == 200
    with servers.without_postgres():
        with servers.frozen("kafka"):
            answers = [client.post(zoom()) for _ in range(4)]
        assert [answer.status for answer in answers] == [503] * 4
        assert all(answer.retry_after and answer.seconds < 3 for answer in answers)
        until("an event is held", lambda: client.post(zoom()).status == 200, 8)
    all_is_sent(servers)
    client.close()


def test_a_foreign_record_is_passed_over(servers, zoom):
    before = servers.metric("hookgate_held_unreadable_total")
    subprocess.run(["kcat", "-b", kafka.bootstrap(servers.state), "-P", "-t", "webhooks.hold", "-p", "2"],
                   input=b"not ours", check=True, timeout=30)
    until("it is counted", lambda: servers.metric("hookgate_held_unreadable_total") == before + 1, 15)
    client = servers.client()
    with servers.without_postgres():
        answers = [client.post(zoom()) for _ in range(8)]
    client.close()
    assert [answer.status for answer in answers] == [200] * 8
    all_is_sent(servers)
    counts = servers.event_ids()
    assert [counts[event_id] for event_id in event_ids_of(answers)] == [1] * 8


def audit_before_it_is_taken_over(servers, audit):
    """Between Postgres' return and the taking over: the gateways are stopped for that long."""
    with servers.frozen(*(gateway.name(number) for number in (1, 2, 3))):
        servers.start_postgres()
        return audit()


def test_audit_counts_what_is_held(servers, zoom, audit):
    client = servers.client()
    servers.stop_postgres(signal.SIGINT)
    assert [client.post(zoom()).status for _ in range(5)] == [200] * 5
    client.close()
    report = audit_before_it_is_taken_over(servers, audit)
    assert (report["held"], report["missing"]) == (5, 0), report
    all_is_sent(servers)
    report = audit()
    assert (report["held"], report["missing"], report["doubled"], report["parked"]) == (0, 0, 0, 0), report
    assert report["acknowledged"] == report["in_kafka"] == 5


def test_audit_counts_markers(servers, zoom, audit):
    """Their events are in Kafka and have no receipt yet; they were answered 200."""
    before = servers.metric("hookgate_held_total", kind="marker")
    clients, _, answers = publish_without_postgres(servers, zoom)
    for client in clients:
        client.close()
    assert [answer.status for answer in answers] == [200] * 12, [answer.json for answer in answers]
    markers = servers.metric("hookgate_held_total", kind="marker") - before
    assert markers >= 3
    report = audit_before_it_is_taken_over(servers, audit)
    assert (report["held"], report["missing"], report["unclaimed"]) == (12, 0, 0), report
    assert report["acknowledged"] == report["in_kafka"] == 12 + markers, report  # others were sent before
    all_is_sent(servers)
    report = audit()
    assert (report["held"], report["missing"], report["unclaimed"], report["doubled"]) == (0, 0, 0, 0), report
    assert report["acknowledged"] == report["in_kafka"] == 24, report


def test_what_postgres_refuses_is_set_aside(servers, zoom, audit):
    """One held event that Postgres refuses for what it is gets stuck alone; the others go on, its copies are
    duplicates, and `hookgate stuck retry` brings it to its topic once."""
    poison, others = zoom(), [zoom() for _ in range(30)]
    before = servers.metric("hookgate_unheld_total", fate="refused")
    with refusing(servers, poison):
        with servers.without_postgres():
            answers = post_all(servers, [*others[:15], poison, *others[15:], poison])
        assert [answer.status for answer in answers] == [200] * 32
        ids = event_ids_of(answers)
        refused = ids.pop(15)
        assert ids.pop() == refused
        is_there_once(servers, ids)
        assert servers.metric("hookgate_unheld_total", fate="refused") - before == 1
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
    is_there_once(servers, [refused])
    assert post_all(servers, [poison])[0].json["status"] == "duplicate"
    assert audit()["stuck"] == 0 and servers.claims_without_receipt() == 0


def test_a_live_event_that_postgres_refuses(servers, zoom, audit):
    """Kafka has it when Postgres refuses its receipt: it leaves a marker, which is set aside, and the gate opens."""
    poison, lanes = zoom(), servers.metric("hookgate_store_lanes_ready")
    with refusing(servers, poison):
        answer, = post_all(servers, [poison])
        assert answer.status == 200 and answer.seconds < 3
        refused = answer.json["webhook_event_id"]
        until("it is set aside", lambda: refused in stuck(servers, "list")[1], 10)
        until("all lanes are back", lambda: servers.metric("hookgate_store_lanes_ready") == lanes and not left(servers), 10)
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
        with servers.without_postgres():
            answers = post_all(servers, [*others, poison])
        assert [answer.status for answer in answers] == [200] * 31
        *ids, refused = event_ids_of(answers)
        until("an instance tells", lambda: servers.metric("hookgate_held_blocked_partitions") > 0, 15)
        until("events of other partitions are sent", lambda: len(set(ids) & set(servers.event_ids())) > 10, 15, 0.5)
        assert not servers.receipts(refused) and not servers.claims(refused)
    is_there_once(servers, [*ids, refused])
    assert servers.metric("hookgate_held_blocked_partitions") == 0


def test_a_refused_event_is_given_up(servers, zoom):
    """`hookgate stuck drop`: as if it had never come."""
    poison = zoom()
    with refusing(servers, poison):
        with servers.without_postgres():
            refused, = event_ids_of(post_all(servers, [poison]))
        until("it is set aside", lambda: refused in stuck(servers, "list")[1], 15)
        status, _, why = stuck(servers, "drop")
        assert status == 2 and "drop needs" in why
        assert stuck(servers, "drop", refused) == (0, "1 events are dropped\n", "")
    assert stuck(servers, "list") == (0, "", "")
    status, told, why = stuck(servers, "drop", refused)
    assert (status, told) == (1, "0 events are dropped\n") and f"{refused} is not stuck" in why
    assert post_all(servers, [poison])[0].json["status"] == "accepted"
    is_there_once(servers, [refused])


# ---- the holding topics change under the gateways ----

HOLD, MARKERS = "webhooks.hold", "webhooks.hold.markers"


def topic_tool(servers, *arguments):
    kafka.tool(servers.state, "org.apache.kafka.tools.TopicCommand", *arguments)


def post_held(servers, events, client=None):
    """Answered 200, perhaps not at once: a topic has just been made."""
    made = client or servers.client()
    answers = []
    for event in events:
        until("it is held", lambda: answers.append(made.post(event)) or answers[-1].status == 200, 8)
    made.close()
    return event_ids_of(answer for answer in answers if answer.status == 200)


def places_of(servers, topic):
    return dict(servers.query("SELECT kafka_partition, next_offset FROM mcp.webhook_hold_offsets"
                              " WHERE kafka_topic = %s ORDER BY 1", topic))


def test_a_holding_topic_made_anew(servers, zoom, audit):
    """It begins at offset 0 again, and what is held there is behind what was taken over of the old one."""
    with servers.without_postgres():
        known = post_held(servers, [zoom() for _ in range(60)])
    all_is_sent(servers)
    before = places_of(servers, HOLD)
    servers.stop_postgres(signal.SIGINT)
    topic_tool(servers, "--delete", "--topic", HOLD)
    ids = post_held(servers, [zoom() for _ in range(5)])  # an instance makes it anew
    records = servers.records(HOLD)
    assert {record.event_id for record in records} >= set(ids)
    assert any(record.offset < before[record.partition] for record in records), "all are behind the old offsets"
    report = audit_before_it_is_taken_over(servers, audit)
    assert (report["held"], report["missing"]) == (len(records), 0), report
    is_there_once(servers, known + ids)
    report = audit()
    assert (report["held"], report["missing"], report["doubled"]) == (0, 0, 0), report


@pytest.mark.all_faults
def test_a_holding_topic_with_other_partitions(servers, zoom, audit):
    """More while the gateways run; and fewer again, in a topic made anew."""
    unreadable = servers.metric("hookgate_held_unreadable_total")
    number = len(places_of(servers, HOLD))
    topic_tool(servers, "--alter", "--topic", HOLD, "--partitions", str(number + 8))
    try:
        subprocess.run(["kcat", "-b", kafka.bootstrap(servers.state), "-P", "-t", HOLD, "-p", str(number + 7)],
                       input=b"not ours", check=True, timeout=30)
        until("it is looked at", lambda: servers.metric("hookgate_held_unreadable_total") == unreadable + 1, 15)
        # Who came later knows all partitions; and ends before anything can be taken over.
        with servers.gateway("late") as late:
            servers.stop_postgres(signal.SIGINT)
            ids = post_held(servers, [zoom() for _ in range(40)], late.client())
        records = servers.records(HOLD)
        assert any(record.partition >= number for record in records), "the new partitions are not used"
        report = audit_before_it_is_taken_over(servers, audit)
        assert (report["held"], report["missing"]) == (len(records), 0), report
        is_there_once(servers, ids)
    finally:
        servers.start_postgres()
        topic_tool(servers, "--delete", "--topic", HOLD)
    until("rows of partitions that are gone are gone", lambda: len(places_of(servers, HOLD)) == number, 20)
    until("claims can be purged", lambda: servers.query(
        "SELECT min(caught_up_at) > now() - interval '15 s' FROM mcp.webhook_hold_offsets"
        " WHERE kafka_topic = %s", HOLD)[0][0], 30)
    with servers.without_postgres():
        ids = post_held(servers, [zoom() for _ in range(20)])
    is_there_once(servers, ids)


def test_holding_topics_are_missing(servers, zoom):
    """And then a session is lost: events are refused for a moment, not until somebody looks a minute later."""
    topic_tool(servers, "--delete", "--topic", HOLD)
    topic_tool(servers, "--delete", "--topic", MARKERS)
    servers.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
                  " AND backend_type = 'client backend'")
    client, begin, answers = servers.client(), time.monotonic(), []
    while [answer.status for answer in answers[-20:]] != [200] * 20:
        assert time.monotonic() - begin < 5, [answer.status for answer in answers]
        answers.append(client.post(zoom()))
    client.close()
    is_there_once(servers, event_ids_of(answer for answer in answers if answer.status == 200))
    assert {HOLD, MARKERS} <= set(kafka.topics(servers.state))
