"""The gateway itself is killed, and stopped politely."""
import collections
import signal
import threading
import time

import pytest

from harness import gateway as gateways, process, until
from load import Load

RATE = 1000


def lost(servers, results):
    answered = {sent.event_id for sent in results if sent.status == 200}
    assert answered
    return answered - servers.event_ids().keys(), answered


def killed(servers, rounds):
    """One instance after the other, under load; every answer, and how many events were sent per second."""
    started = time.monotonic()
    with Load(servers.url, servers.ca, servers.secret("zoom"), servers.zoom_account, RATE + 50, workers=64) as load:
        for round_ in range(rounds):
            time.sleep(0.7)
            name = f"hookgate-{round_ % servers.state.instances + 1}"
            assert process.stop(servers.state.record(name), signal.SIGKILL, 5)
            time.sleep(0.1)
            servers.start_gateways()
        time.sleep(0.5)
        rate = len(load.results) / (time.monotonic() - started)
        return load.stop(), rate


@pytest.mark.parametrize("rounds", [pytest.param(10, marks=pytest.mark.faults), pytest.param(100, marks=pytest.mark.all_faults)])
def test_kill_nine_at_a_thousand_a_second(servers, rounds):
    """One of the instances behind nginx; every event answered 2xx is in the topic."""
    results, rate = killed(servers, rounds)
    counts = servers.event_ids()
    answered = {sent.event_id for sent in results if sent.status == 200}
    missing = answered - counts.keys()
    words = collections.Counter(sent.word for sent in results)
    doubled = sum(counts[event_id] - 1 for event_id in answered & counts.keys())
    print(f"{rounds} rounds, {rate:.0f} events/s, {dict(words)}, slowest {max(sent.seconds for sent in results):.2f} s, "
          f"missing {len(missing)}, doubled {doubled}")
    assert not missing, f"{len(missing)} of {len(answered)} events answered 200 are not in the topic"
    assert words["accepted"] > 0.9 * len(results)
    assert not [sent for sent in results if sent.seconds > 3]
    until("claims of dead sessions rolled back", lambda: servers.claims_without_receipt() == 0, 10)
    rows = {row[0] for row in servers.query("SELECT event_id::text FROM mcp.webhook_events WHERE event_id = ANY "
                                            "(%s::uuid[])", list(answered))}
    assert rows == answered


@pytest.mark.faults
@pytest.mark.all_faults
def test_kill_nine_of_the_only_instance(servers):
    """Without others to take over: connections break, nothing answered is lost."""
    with servers.gateway("lonely") as lonely:
        with Load(lonely.url, servers.ca, servers.secret("zoom"), servers.zoom_account, RATE, workers=32) as load:
            for _ in range(3):
                time.sleep(1)
                lonely.kill()
                lonely.start()
            time.sleep(0.5)
            results = load.stop()
    missing, answered = lost(servers, results)
    assert not missing, f"{len(missing)} of {len(answered)} events answered 200 are not in the topic"
    until("claims of dead sessions rolled back", lambda: servers.claims_without_receipt() == 0, 10)


def test_drain(servers):
    """SIGTERM under load: /readyz says no at once, what is in flight is answered, exit status 0."""
    with servers.gateway("drained", {"deadlines": {"drain_delay": "1s", "stop": "10s"}}) as drained:
        with Load(drained.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 100, workers=8) as load:
            time.sleep(1)
            asked = time.monotonic()
            drained.send_signal(signal.SIGTERM)
            until("readyz says no", lambda: drained.admin("/readyz").status == 503, 0.8, 0.02)
            assert drained.admin("/livez").status == 200
            status = drained.process.wait(15)
            results = load.stop()
    assert status == 0
    during = [sent for sent in results if asked < sent.at < asked + 0.6]
    assert during and all(sent.status == 200 for sent in during), [s for s in during if s.status != 200][:3]
    missing, answered = lost(servers, results)
    assert not missing
    # A connection that breaks had no answer; one that was answered was answered whole.
    assert all(sent.status in (0, 200, 503) for sent in results)


def test_second_sigterm_ends_at_once(servers):
    with servers.gateway("impatient", {"deadlines": {"drain_delay": "20s", "stop": "20s"}}) as impatient:
        impatient.send_signal(signal.SIGTERM)
        until("readyz says no", lambda: impatient.admin("/readyz").status == 503, 2)
        started = time.monotonic()
        impatient.send_signal(signal.SIGTERM)
        impatient.process.wait(10)
        assert time.monotonic() - started < 5


def test_nginx_takes_another_instance(servers, zoom):
    """One of three is gone and was not told to nginx: every event is still taken."""
    gateways.stop(servers.state, 3)
    try:
        made = servers.client()
        answers = [made.post(zoom()) for _ in range(30)]
        made.close()
        assert [answer.status for answer in answers] == [200] * 30
    finally:
        servers.start_gateways()


def test_copies_in_flight_share_one_outcome(servers, zoom):
    """Ten copies at once to one instance, as one batch sees them."""
    event = zoom()
    answers, barrier = [], threading.Barrier(10)

    def send():
        made = servers.client(servers.direct_url())
        barrier.wait()
        answers.append(made.post(event))
        made.close()

    threads = [threading.Thread(target=send) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answer.json["status"] for answer in answers) == ["accepted"] + ["duplicate"] * 9
