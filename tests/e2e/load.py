"""A constant-rate sender that remembers every answer, and what is asserted of the answers. Events are numbered;
each worker has its own connection and sends at the moments that are due, whatever the answers before took."""
import threading
import time
from dataclasses import dataclass

from client import Client
from harness import until
from signing import zoom_body, zoom_signed


@dataclass
class Sent:
    at: float             # monotonic, when it was sent
    seconds: float        # until the answer, or until the connection failed
    status: int           # 0: no answer, the connection failed
    retry_after: int      # None: not told
    event_id: str         # None unless 200
    word: str             # accepted, duplicate … or the error's code


class Load:
    def __init__(self, url, ca, secret, account, rate, workers=32, timeout=8, event="meeting.started", again=False):
        self._arguments = (url, ca, timeout)
        # One account for all events, or a function that says whose each one is.
        self._account = account if callable(account) else lambda: account
        self._secret, self._event = secret, event
        self._rate, self._workers = rate, workers
        self._again = again  # repeat once on a connection that was closed before an answer began
        self._stop = threading.Event()
        self._results = [[] for _ in range(workers)]
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(workers)]

    def __enter__(self):
        self._start = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends sending, waits for the answers that are due, and returns them all."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.results

    @property
    def results(self):
        return [sent for worker in self._results for sent in list(worker)]

    def _work(self, number):
        url, ca, timeout = self._arguments
        step = self._workers / self._rate
        due = self._start + step * number / self._workers
        client = Client(url, ca, timeout)
        while not self._stop.is_set():
            pause = due - time.monotonic()
            if pause > 0 and self._stop.wait(pause):
                break
            # After a stall: catch up with a few, not with all that was missed.
            due = max(due + step, time.monotonic() - 0.5)
            event = zoom_signed(zoom_body(self._account(), self._event), self._secret)
            self._results[number].append(self._send(client, event))
        client.close()

    def _send(self, client, event, again=None):
        at = time.monotonic()
        try:
            answer = client.post(event)
        except Exception:  # whatever broke, there was no answer
            client.close()
            if self._again if again is None else again:
                return self._send(client, event, again=False)
            return Sent(at, time.monotonic() - at, 0, None, None, "no answer")
        told = answer.json
        word = told.get("status") or told.get("error", {}).get("code")
        return Sent(at, answer.seconds, answer.status, answer.retry_after, told.get("webhook_event_id"), word)


def under_load(servers, fault, outage=4.0, after=7.0, rate=200):
    """Zoom's events through nginx, while `fault`, a context manager, has broken something for `outage` seconds. Returns
    all answers and the moment of the return."""
    with Load(servers.url, servers.ca, servers.secret("zoom"), servers.zoom_account, rate, workers=64) as load:
        time.sleep(1.5)
        broken = time.monotonic()
        with fault:
            time.sleep(outage)
        returned = time.monotonic()
        time.sleep(after)
        results = load.stop()
    assert any(sent.status == 200 and sent.at < broken for sent in results), "nothing was accepted before the fault"
    return results, returned


def all_taken(results):
    """Every event is answered 2xx, and in time."""
    slow = [sent for sent in results if sent.seconds > 3]
    assert not slow, f"{len(slow)} of {len(results)} answers took more than 3 s: {slow[:3]}"
    refused = [sent for sent in results if sent.status != 200]
    assert not refused, f"{len(refused)} of {len(results)} were refused: {refused[:3]}"


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


def each_once(servers, results, topic="webhooks.zoom"):
    """Each event answered 2xx is in the topic once, where its one receipt says, and has its claim; no claim is
    without a receipt. Whatever had to wait for that is waited for."""
    all_is_sent(servers)
    answered = {sent.event_id for sent in results if sent.status == 200}
    places = {}
    for record in servers.records(topic):
        places.setdefault(record.event_id, []).append((record.partition, record.offset))
    missing = answered - places.keys()
    assert not missing, f"{len(missing)} of {len(answered)} events answered 2xx are not in the topic"
    twice = [event_id for event_id in answered if len(places[event_id]) > 1]
    assert not twice, f"{len(twice)} of {len(answered)} events are in the topic more than once: {twice[:3]}"
    rows = servers.query("SELECT event_id::text, status, kafka_partition, kafka_offset FROM mcp.webhook_events "
                         "JOIN mcp.webhook_claims USING (event_id) WHERE event_id = ANY (%s::uuid[])", list(answered))
    assert sorted(row[0] for row in rows) == sorted(answered), f"{len(rows)} receipts with claims of {len(answered)} events"
    unpublished = [row for row in rows if row[1] != "published"]
    assert not unpublished, f"{len(unpublished)} of {len(rows)} receipts do not say published: {unpublished[:3]}"
    elsewhere = [row for row in rows if row[3] is not None and places[row[0]] != [(row[2], row[3])]]
    assert not elsewhere, f"{len(elsewhere)} of {len(rows)} receipts name another place: {elsewhere[:3]}"
    alone = servers.claims_without_receipt()
    assert alone == 0, f"{alone} claims without a receipt"
