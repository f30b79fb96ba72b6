"""Kafka is stopped, killed and frozen under load: every event is taken in time, parked in Postgres, and is in
its topic once afterwards, without anyone's help."""
import signal
import time

import pytest

from harness import gateway, until
from load import Load, all_taken, each_once, under_load

pytestmark = pytest.mark.faults
ZOOM = "webhooks.zoom"


def waiting(servers):
    return servers.query("SELECT count(*) FROM mcp.webhook_outbox")[0][0]


def drained(servers, seconds=60):
    """The outbox empties by itself; returns how long that took."""
    started = time.monotonic()
    until("the outbox is empty", lambda: waiting(servers) == 0, seconds, 0.2)
    return time.monotonic() - started


def through_the_outbox(servers):
    """How many events went into it, by a lane or after they were held, and how many left it."""
    time.sleep(0.5)  # counted after it is settled
    into = servers.metric("hookgate_parked_total") + servers.metric("hookgate_unheld_total", fate="parked")
    return into, servers.metric("hookgate_drained_total")


def outage(servers, fault, seconds):
    drained(servers)  # what the test before has left there
    before = through_the_outbox(servers)
    results, _ = under_load(servers, fault, outage=seconds)
    all_taken(results)
    took = drained(servers)
    parked, taken_back = (after - earlier for after, earlier in zip(through_the_outbox(servers), before))
    print(f"{len(results)} events, {parked:.0f} parked, drained {took:.1f} s after the load; slowest "
          f"{max(sent.seconds for sent in results):.2f} s")
    assert parked > 0
    each_once(servers, results)
    assert parked == taken_back
    # Live traffic goes to Kafka again, by every instance.
    until("breakers are closed", lambda: servers.metric("hookgate_broker_breakers_open") == 0, 5)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, id="stopped"),
                                    pytest.param(signal.SIGKILL, id="killed", marks=pytest.mark.all_faults)])
def test_kafka_gone(servers, number):
    outage(servers, servers.without_kafka(number), 12)
    assert all(views.admin("/readyz").status == 200 for views in servers.all_views())


@pytest.mark.all_faults
def test_kafka_frozen(servers):
    """SIGSTOP: what was in flight is written when the broker wakes up. It was parked as undecided: it is
    looked for in the topic, and found, so it is not sent again."""
    found = servers.metric("hookgate_undecided_total", found="yes")
    outage(servers, servers.frozen("kafka"), 10)
    assert servers.metric("hookgate_undecided_total", found="yes") > found, "nothing was in flight: this proves nothing"


def test_an_instance_is_ready_while_kafka_is_down(servers, zoom):
    """It parks, also when it is started meanwhile."""
    with servers.without_kafka():
        with servers.gateway("parks") as parks:
            made = parks.client()
            event = zoom()
            answer = made.post(event)
            assert (answer.status, answer.json["status"]) == (200, "accepted")
            assert made.post(event).json["status"] == "duplicate"
            made.close()
            assert parks.admin("/readyz").status == 200
            event_id = answer.json["webhook_event_id"]
            assert servers.receipts(event_id)[0]["status"] == "parked"
            assert parks.metric("hookgate_parked_total") == 1
            until("the gauge tells", lambda: parks.metric("hookgate_outbox_events") == 1, 3)
    drained(servers)
    assert servers.receipts(event_id)[0]["status"] == "published"
    assert servers.event_ids()[event_id] == 1


def test_budget(servers, zoom):
    """Beyond park.bytes: 503 with Retry-After, and the instance says that it is not ready."""
    with servers.without_kafka():
        with servers.gateway("small", {"park": {"bytes": "2KiB"}}) as small:
            made = small.client()
            answers = [made.post(zoom()) for _ in range(8)]
            made.close()
            assert answers[0].status == 200
            assert answers[-1].status == 503 and answers[-1].retry_after > 0
            assert answers[-1].json["error"]["code"] == "unavailable"
            refused = [answer.status for answer in answers].index(503)
            assert all(answer.status == 503 for answer in answers[refused:])
            answer = small.admin("/readyz")
            assert answer.status == 503 and b"kafka" in answer.raw
    drained(servers)


@pytest.mark.all_faults
def test_a_row_that_others_settled_counts_as_a_possible_double(servers, zoom):
    """What a drainer finds that was stopped for so long that others have sent its record too. Here a trigger makes
    the row look gone."""
    before = servers.metric("hookgate_possible_doubles_total", cause="drain")
    with servers.without_kafka():
        made = servers.client()
        event_id = made.post(zoom()).json["webhook_event_id"]
        made.close()
        servers.query("CREATE FUNCTION public.gone() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$;"
                      "CREATE TRIGGER gone BEFORE DELETE ON mcp.webhook_outbox FOR EACH ROW EXECUTE FUNCTION public.gone()")
    try:
        until("it is counted", lambda: servers.metric("hookgate_possible_doubles_total", cause="drain") == before + 1, 20)
    finally:
        servers.query("DROP FUNCTION public.gone() CASCADE")
    record, = [record for record in servers.records(ZOOM) if record.event_id == event_id]
    servers.query("UPDATE mcp.webhook_events SET status = 'published', kafka_partition = %s, kafka_offset = %s"
                  " WHERE event_id = %s", record.partition, record.offset, event_id)
    servers.query("DELETE FROM mcp.webhook_outbox WHERE event_id = %s", event_id)


@pytest.mark.all_faults
def test_an_instance_that_is_frozen_over_its_search_stops_nobody_elses(servers, zoom):
    """It has the right to look for undecided records, as its session's lock; Postgres ends the idle session."""
    drained(servers)
    with servers.without_kafka():
        made = servers.client()
        event_id = made.post(zoom()).json["webhook_event_id"]
        made.close()
        servers.query("UPDATE mcp.webhook_outbox SET undecided_since = clock_timestamp() - interval '10 min',"
                      " record_time = received_at, sent_partition = NULL WHERE event_id = %s", event_id)
    until("one searches", lambda: _searching(servers), 20, 0.01)
    with servers.frozen(*(gateway.name(number) for number in range(1, servers.state.instances + 1))):
        time.sleep(1)
        assert _searching(servers) and waiting(servers) == 1, "it was done already: this proves nothing"
        with servers.gateway("searches"):
            until("another has decided", lambda: servers.receipts(event_id)[0]["status"] == "published", 60, 0.3)
    drained(servers)
    assert servers.event_ids()[event_id] == 1


def _searching(servers):
    return servers.query("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
                         " AND classid::int8 = hashtext('hookgate.undecided')::int8 & 4294967295")[0][0] > 0


def _killed_while_draining(servers):
    """Answers of an outage, and what was left and under way when all instances died over draining it."""
    with servers.without_kafka():
        with Load(servers.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 300, workers=48) as load:
            time.sleep(8)
            results = load.stop()
        assert {sent.status for sent in results} == {200}
        rows = waiting(servers)
        assert rows > 1000
    until("draining has begun", lambda: waiting(servers) < rows - 100, 20, 0.005)
    # What is sent now stays on its way; what Kafka has in its sockets it will write, whoever is dead by then.
    with servers.frozen("kafka"):
        time.sleep(0.2)
        servers.kill_gateways()
        left, marked = servers.query("SELECT count(*), count(undecided_since) FROM mcp.webhook_outbox")[0]
    servers.start_gateways()
    print(f"{len(results)} parked, killed with {left} left and {marked} on their way, drained {drained(servers, 90):.1f} s "
          "later")
    return results, left > 0 and marked > 0


@pytest.mark.all_faults
def test_kill_nine_while_draining(servers):
    """All instances die with records on their way: rows were marked before they were sent, so they are looked for
    in the topic and not sent again."""
    for _ in range(3):
        results, proves = _killed_while_draining(servers)
        each_once(servers, results)
        if proves:
            return
    pytest.fail("three times nothing was on its way: this proves nothing")
