"""The wall clock steps, as after a virtual machine's pause or a wrong time server: freshness follows it, deadlines
and limits do not break."""
import os
import struct
import subprocess
import time

import pytest

from harness import until
from load import Load
from signing import zoom_body, zoom_signed

HOUR = 3600


class Clock:
    """The file that the preloaded clock reads."""

    def __init__(self, directory):
        self.library, self.path = str(directory / "stepped_clock.so"), str(directory / "clock")
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "stepped_clock.c")
        subprocess.run(["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", self.library, source],
                       check=True)
        self.step(0)

    def step(self, seconds):
        with open(self.path, "r+b" if os.path.exists(self.path) else "w+b") as file:
            file.write(struct.pack("q", seconds))

    def environment(self):
        # A sanitizer wants to be the first library; it need not be.
        options = "verify_asan_link_order=0:" + os.environ.get("ASAN_OPTIONS", "")
        return {"LD_PRELOAD": self.library, "STEPPED_CLOCK": self.path, "ASAN_OPTIONS": options}


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def stepped(servers, clock):
    with servers.gateway("stepped", environment=clock.environment()) as made:
        yield made


def signed(servers, ahead):
    body = zoom_body(servers.zoom_account, "meeting.started")
    return zoom_signed(body, servers.secret("zoom"), int(time.time()) + ahead)


def test_freshness_follows_the_clock(servers, stepped, clock):
    def status(ahead):
        client = stepped.client()
        try:
            return client.post(signed(servers, ahead)).status
        finally:
            client.close()

    assert status(0) == 200
    clock.step(HOUR)
    assert status(0) == 401
    assert status(HOUR) == 200
    clock.step(-HOUR)
    assert status(0) == 401
    assert status(-HOUR) == 200
    clock.step(0)
    assert status(0) == 200


def test_deadlines_do_not_follow_it(servers, stepped, clock):
    """Steps ahead and back under load, within the tolerance of signatures: every event is answered, and in time. libh2o's
    timers do follow the wall clock: an idle connection may be closed early, and its client connects anew."""
    with Load(stepped.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 100, workers=8,
              again=True) as load:
        for seconds in (200, -200, 250, 0, -250, 0):
            time.sleep(0.5)
            clock.step(seconds)
        time.sleep(1)
        results = load.stop()
    wrong = [sent for sent in results if sent.status != 200]
    assert len(results) > 200 and not wrong, wrong[:3]
    assert max(sent.seconds for sent in results) < 3
    assert stepped.admin("/livez").status == 200 and stepped.admin("/readyz").status == 200


def test_limits_do_not_follow_it(servers, stepped, clock):
    """A clock that jumps an hour frees no window and closes none."""
    def send(count, ahead):
        words, client = [], stepped.client()
        for _ in range(count):
            body = zoom_body(servers.limited_account, "meeting.started")
            words.append(client.post(zoom_signed(body, servers.secret("zoom"), int(time.time()) + ahead)).status)
        client.close()
        return words

    first = send(110, 0)
    taken = first.count(200)
    assert 503 in first and 90 <= taken <= 105, taken
    clock.step(HOUR)
    assert send(5, HOUR).count(200) == 0
    clock.step(0)
    assert send(5, 0).count(200) == 0


def test_nothing_old_is_deleted_while_it_differs_from_that_of_postgres(servers, clock):
    clock.step(-HOUR)
    with servers.gateway("behind", environment=clock.environment()) as behind:
        until("it is told", lambda: behind.lines(event="clock_differs"), 10)
        line, = behind.lines(event="clock_differs")
        assert line["level"] == "error" and "s ahead of this host's" in line["msg"], line
        until("claims are compared", lambda: behind.metric("hookgate_accounted_timestamp_seconds") > 0, 10)
        assert HOUR - 5 < behind.metric("hookgate_store_clock_ahead_seconds") < HOUR + 5
        assert -120 < behind.metric("hookgate_accounted_timestamp_seconds") - time.time() < 0
        assert not behind.lines(event="upkeep_failed")
