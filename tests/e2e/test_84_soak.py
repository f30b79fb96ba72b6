"""A day of mixed traffic in three minutes: everything that the other files send one by one, at random, from many clients at once.
Half of it under a sanitizer, without a leak; half with the release build, which must not grow. HOOKGATE_SOAK_SECONDS makes it longer."""
import collections
import contextlib
import http.client
import os
import random
import socket
import ssl
import threading
import time

import pytest

import signing
from client import head_of, raw_socket
from harness import until
from test_81_shapes import CASES
from test_83_bombs import BOMBS, JUNK

SECONDS = int(os.environ.get("HOOKGATE_SOAK_SECONDS", "90"))
CLIENTS = 12
MIB = 1 << 20


class Traffic:
    def __init__(self, servers, gateway, zoom):
        self.servers, self.gateway, self.zoom = servers, gateway, zoom
        self.ends = time.monotonic() + SECONDS
        self.counts = collections.Counter()
        self.wrong = []
        self.bombs = [make(servers.zoom_account) for make, _ in BOMBS.values()]
        self.context = ssl.create_default_context(cafile=servers.ca)

    def url(self):
        return random.choice([self.gateway.url, self.gateway.plain_url])

    def push(self, url, data, rest=b"", wait=0.02):
        """Bytes, a pause, more bytes, a short look for an answer, and gone."""
        with contextlib.suppress(OSError), raw_socket(url, self.servers.ca, timeout=3) as connection:
            connection.sendall(data)
            if rest:
                time.sleep(wait)
                connection.sendall(rest)
            connection.settimeout(wait)
            connection.recv(65536)

    def honest(self):
        client = self.servers.client(self.url())
        for _ in range(random.randint(1, 5)):
            event = self.zoom(padding=random.choice([0, 0, 100, 5000, 100000]))
            for _ in range(random.choice([1, 1, 2])):
                answer = client.post(event)
                if answer.status != 200:
                    self.wrong.append((answer.status, answer.raw[:100]))
                self.counts["answered"] += 1
        client.close()

    def forged(self):
        client = self.servers.client(self.url())
        answer = client.post(self.zoom(secret="forged", padding=random.choice([0, 1000, 900_000])))
        if answer.status != 401:
            self.wrong.append((answer.status, answer.raw[:100]))
        client.close()

    def shape(self):
        self.push(self.url(), random.choice(CASES).data(self.zoom(), self.zoom()))

    def bomb(self):
        client = self.servers.client(self.url())
        client.post(signing.zoom_signed(random.choice(self.bombs), self.servers.secret("zoom")))
        client.close()

    def junk(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.gateway.ports["https"]), 3) as plain:
            plain.sendall(random.choice(list(JUNK.values())))

    def cut(self):
        event = self.zoom(padding=random.choice([0, 500_000]))
        data = head_of(event, **{"content-length": len(event.body)}) + b"\r\n" + event.body
        at = random.randrange(len(data))
        self.push(self.url(), data[:at], data[at:] if random.random() < 0.5 else b"")

    def noise(self):
        event = self.zoom()
        data = bytearray(head_of(event, **{"content-length": len(event.body)}) + b"\r\n" + event.body)
        for _ in range(random.randint(1, 8)):
            data[random.randrange(len(data))] = random.randrange(256)
        self.push(self.url(), bytes(data))

    def crowd(self):
        self.push(self.url(), b"GET /webhooks/zoom HTTP/1.1\r\nhost: a\r\n\r\n" * random.randint(1, 500))

    def idle(self):
        with contextlib.suppress(OSError):
            connections = [raw_socket(self.url(), self.servers.ca, timeout=3) for _ in range(5)]
            time.sleep(random.random())
            for connection in connections:
                connection.close()

    def run(self):
        kinds = [self.honest, self.honest, self.forged, self.shape, self.shape, self.bomb, self.junk, self.cut, self.noise,
                 self.crowd, self.idle]
        while time.monotonic() < self.ends:
            kind = random.choice(kinds)
            self.counts[kind.__name__] += 1
            try:
                kind()
            except (OSError, http.client.HTTPException) as error:
                self.wrong.append((kind.__name__, repr(error)))


@pytest.mark.parametrize("build", [pytest.param("checked", id="leaks"), pytest.param("release", id="growth", marks=pytest.mark.faults)])
def test_a_day_of_traffic(servers, zoom, build):
    with servers.gateway(f"soak-{build}", {"listen": {"request": "2s", "connections": 300}, "log": {"level": "error"}}) as gateway:
        traffic = Traffic(servers, gateway, zoom)
        threads = [threading.Thread(target=traffic.run) for _ in range(CLIENTS)]
        for thread in threads:
            thread.start()
        samples = []
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.25)
            samples.append(gateway.metric("process_resident_memory_bytes"))
        for thread in threads:
            thread.join()
        until("all connections to end", lambda: gateway.metric("hookgate_connections") <= 1, 10)
        until("all bodies to be let go", lambda: gateway.metric("hookgate_connection_memory_bytes") < 65536, 5)
        assert not traffic.wrong, traffic.wrong[:5]
        # The middle half of the second and of the last third, against one peak.
        third = len(samples) // 3
        warm, late = (sorted(part)[len(part) // 2] for part in (samples[third:2 * third], samples[2 * third:]))
        print(f"{sum(traffic.counts.values())} exchanges, RSS MiB: warm {warm / MIB:.1f}, late {late / MIB:.1f}, "
              f"peak {max(samples) / MIB:.1f}; {dict(traffic.counts)}")
        if build == "release":
            assert late < warm + 8 * MIB
        # A leak ends the process with a status, and the run with a complaint.
        assert gateway.terminate() == 0
