"""Memory and places: what clients may hold is bounded, honest ones are served meanwhile, and afterwards all is given back.

Release build: a sanitizer's own memory would hide what is measured."""
import collections
import concurrent.futures
import contextlib
import http.client
import random
import socket
import ssl
import subprocess
import threading
import time

import pytest

from client import head_of, raw_socket, statuses
from harness import Beside, Gateway, until

pytestmark = pytest.mark.faults

MIB = 1 << 20
IDLE = 5000
FLOOD = 600


def rss(gateway):
    return gateway.metric("process_resident_memory_bytes")


class Sampler(Beside):
    """The highest resident memory, read as an operator's Prometheus would, only more often."""

    def __init__(self, gateway):
        super().__init__(0.05)
        self.gateway, self.peak, self.counted = gateway, 0, 0

    def step(self):
        with contextlib.suppress(OSError, http.client.HTTPException):
            self.peak = max(self.peak, rss(self.gateway))
            self.counted = max(self.counted, self.gateway.metric("hookgate_connection_memory_bytes"))


class Honest(Beside):
    """One who posts small and large events over connections of its own, and repeats what a connection lost."""

    def __init__(self, servers, gateway, zoom):
        super().__init__(0.01)
        self.servers, self.gateway, self.zoom = servers, gateway, zoom
        self.statuses, self.lost, self.slowest = [], 0, 0.0

    def step(self):
        event = self.zoom(padding=random.choice([0, 0, 0, 20000, 200000]))
        try:
            client = self.servers.client(self.gateway.url)
            answer = client.post(event)
            self.statuses.append(answer.status)
            self.slowest = max(self.slowest, answer.seconds)
            client.close()
        except (OSError, http.client.HTTPException):
            self.lost += 1


def idle_tls(gateway, ca, count):
    context = ssl.create_default_context(cafile=ca)
    port = gateway.ports["https"]

    def one(_):
        return context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="127.0.0.1")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, range(count)))


def flood(gateway, zoom, seconds):
    """Bodies of 1 MiB on hundreds of connections: half of them never end, half are forged and whole."""
    event = zoom(secret="forged", padding=MIB - 2000)
    head = head_of(event, **{"content-length": len(event.body)}) + b"\r\n"
    ends = time.monotonic() + seconds
    counts = collections.Counter()

    def one(number):
        while time.monotonic() < ends:
            try:
                with socket.create_connection(("127.0.0.1", gateway.ports["plain"]), 5) as connection:
                    connection.settimeout(max(0.5, ends - time.monotonic()))
                    connection.sendall(head + event.body[:-1])
                    if number % 3 == 0:
                        connection.sendall(event.body[-1:])
                    counts[str(statuses(connection.recv(65536)))] += 1
            except OSError as error:
                counts[type(error).__name__] += 1

    threads = [threading.Thread(target=one, args=(number,)) for number in range(FLOOD)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return counts


def test_idle_connections_and_a_flood_of_bodies_stay_under_the_limit(servers, zoom):
    limit = 512 * MIB
    with servers.gateway("memory", {"listen": {"memory": "512MiB", "request": "60s"}}) as gateway:
        made = gateway.client()
        assert made.post(zoom(padding=MIB // 2)).status == 200
        made.close()
        before = rss(gateway)
        with Sampler(gateway) as sampler, Honest(servers, gateway, zoom) as honest:
            idle = idle_tls(gateway, servers.ca, IDLE)
            quiet = rss(gateway)
            assert gateway.metric("hookgate_connections") >= IDLE
            counts = flood(gateway, zoom, 12)
            flooded = rss(gateway)
            for connection in idle:
                connection.close()
        shed = gateway.metric("hookgate_connections_shed_total", cause="memory")
        until("connections to end", lambda: gateway.metric("hookgate_connections") < 10, 15)
        with contextlib.suppress(AssertionError, Exception):
            until("memory to come back", lambda: rss(gateway) < before + 48 * MIB, 15)
        after = rss(gateway)
        print(f"RSS MiB: before {before / MIB:.0f}, {IDLE} idle {quiet / MIB:.0f} ({(quiet - before) / IDLE:.0f} B each), "
              f"peak {sampler.peak / MIB:.0f}, end of flood {flooded / MIB:.0f}, after {after / MIB:.0f}; "
              f"counted {sampler.counted / MIB:.0f}; shed {shed:.0f}, flood {counts}; "
              f"honest {len(honest.statuses)} of {len(honest.statuses) + honest.lost}, slowest {honest.slowest:.2f} s")
        assert sampler.peak < limit
        assert shed > 0 and counts["[401]"] > 0
        assert set(honest.statuses) == {200} and honest.lost <= len(honest.statuses) // 20
        assert after < before + 48 * MIB


def test_what_is_cut_off_comes_again_and_is_there_once(servers, zoom):
    """Far more large bodies at once than memory takes: some senders lose their connection, none its event."""
    events = [zoom(padding=MIB - 100_000) for _ in range(80)]
    with servers.gateway("tight", {"listen": {"memory": "32MiB"}}) as gateway:
        lost = []

        def deliver(event):
            for _ in range(60):
                client = gateway.client()
                try:
                    answer = client.post(event)
                    if answer.status == 200:
                        return answer.json["webhook_event_id"]
                    assert answer.status == 503
                except (OSError, http.client.HTTPException):
                    lost.append(event)
                finally:
                    client.close()
                time.sleep(random.uniform(0.05, 0.4))
            return None

        # Unfinished ones of somebody else hold most of the memory.
        head = head_of(events[0], **{"content-length": len(events[0].body)}) + b"\r\n"
        others = [raw_socket(gateway.plain_url) for _ in range(20)]
        for other in others:
            with contextlib.suppress(OSError):
                other.sendall(head + events[0].body[:-1])
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            ids = list(pool.map(deliver, events))
        for other in others:
            other.close()
        assert gateway.metric("hookgate_connections_shed_total", cause="memory") > 0 and lost
        until("bodies to be let go", lambda: gateway.metric("hookgate_connection_memory_bytes") < MIB, 5)
        assert gateway.lines(event="connections_shed")
    assert None not in ids and len(set(ids)) == len(events)
    counts = servers.event_ids()
    assert [counts.get(event_id) for event_id in ids] == [1] * len(ids)


@pytest.mark.parametrize("unfinished", [b"", b"POST /webhooks/zoom HTTP/1.1\r\nhost: a\r\n"], ids=["idle", "slow"])
def test_who_only_holds_places_locks_nobody_out(servers, zoom, unfinished):
    """All places are taken by clients that do nothing and come again as soon as they are cut off."""
    with servers.gateway("narrow", {"listen": {"connections": 40, "request": "60s"}}) as gateway:
        quit_event = threading.Event()

        def hold():
            while not quit_event.is_set():
                with contextlib.suppress(OSError), raw_socket(gateway.plain_url, timeout=0.5) as connection:
                    connection.sendall(unfinished)
                    while not quit_event.is_set():
                        with contextlib.suppress(TimeoutError):
                            if not connection.recv(1):
                                break

        holders = [threading.Thread(target=hold) for _ in range(50)]
        for holder in holders:
            holder.start()
        try:
            until("all places taken", lambda: gateway.metric("hookgate_connections") >= 40, 5)
            for _ in range(3):
                client = servers.client(gateway.url, timeout=15)
                assert client.post(zoom()).status == 200
                client.close()
            assert gateway.metric("hookgate_connections_shed_total", cause="place") > 0
        finally:
            quit_event.set()
            for holder in holders:
                holder.join()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_who_does_not_read_is_cut_off(servers, tls):
    """Thousands of requests in one go, and no answer is read: libh2o would wait for ever."""
    with servers.gateway("stuck", {"listen": {"request": "1s"}}) as gateway:
        connection = raw_socket(gateway.url if tls else gateway.plain_url, servers.ca, timeout=1)
        requests = b"GET /webhooks/zoom HTTP/1.1\r\nhost: a\r\n\r\n" * 1000
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 200 * MIB:
                sent += len(requests)
                connection.sendall(requests)
        assert sent < 200 * MIB, "it reads on although nobody takes its answers"
        until("stuck client cut off", lambda: gateway.metric("hookgate_connections_shed_total", cause="stuck") > 0, 10)
        until("its end", lambda: gateway.metric("hookgate_connections") <= 1, 10)
        connection.close()
        assert rss(gateway) < 128 * MIB  # what it sent waits in the kernel


def test_the_cap_is_below_the_descriptors(servers):
    """More connections than descriptors: refused at start, with what to do."""
    made = Gateway(servers, "few", {"listen": {"connections": 2000}})
    done = subprocess.run(["prlimit", "--nofile=1000:1000", servers.binary, "serve", "--config", made.config_path],
                          capture_output=True, timeout=20, check=False)
    assert done.returncode == 2 and b"listen.connections" in done.stderr and b"LimitNOFILE" in done.stderr
