"""Restarts that no sender notices: listening sockets that a service manager holds (systemd's protocol,
played by the test), and instances behind nginx that are replaced one after the other."""
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from harness import gateway as gateways
from load import Load

# Puts the listening sockets where the protocol wants them, then becomes the gateway.
SHIM = """
import os, sys
count = int(sys.argv[1])
fds = [int(fd) for fd in sys.argv[2:2 + count]]
spare = [os.dup2(fd, 100 + n) for n, fd in enumerate(fds)]
for n, fd in enumerate(spare):
    os.dup2(fd, 3 + n)
os.environ.update(LISTEN_FDS=str(count), LISTEN_PID=str(os.getpid()))
os.closerange(3 + count, 200)
os.execv(sys.argv[2 + count], sys.argv[2 + count:])
"""


class Manager:
    """As much of a service manager as is needed: sockets that outlive the service, and its words."""

    def __init__(self, gateway):
        self.gateway = gateway
        self.sockets = [self._listen(gateway.ports[name]) for name in ("https", "plain", "admin")]
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = f"\0hookgate-test-{os.getpid()}-{gateway.name}"
        self.notify.bind(self.address)
        self.notify.settimeout(20)
        self.running = []

    @staticmethod
    def _listen(port):
        made = socket.socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(("127.0.0.1", port))
        made.listen(1024)
        return made

    def start(self):
        fds = [made.fileno() for made in self.sockets]
        environment = {**os.environ, "NOTIFY_SOCKET": "@" + self.address[1:], "WATCHDOG_USEC": "2000000"}
        with open(self.gateway.log, "ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", SHIM, str(len(fds)), *map(str, fds), self.gateway.servers.binary, "serve",
                 "--config", self.gateway.config_path], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=environment, pass_fds=fds, start_new_session=True)
        self.running.append(process)
        return process

    def words(self, wanted):
        """Reads until the word comes; others may come before it."""
        seen = []
        while not any(line == wanted for word in seen for line in word.split("\n")):
            seen.append(self.notify.recv(4096).decode())
        return seen

    def close(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait()
        for made in [*self.sockets, self.notify]:
            made.close()


@pytest.fixture
def manager(servers):
    from harness import Gateway
    made = Manager(Gateway(servers, "handed", {"deadlines": {"drain_delay": "100ms", "stop": "10s"}}))
    yield made
    made.close()


def failed(results):
    return [sent for sent in results if sent.status != 200]


def test_hand_over_under_load(servers, manager):
    """A new program takes over the sockets; no connection is refused and no answer is cut."""
    old = manager.start()
    manager.words("READY=1")
    manager.gateway.process = old
    manager.gateway.wait()
    # A keep-alive connection may be closed between two requests: like any HTTP client, the sender asks once more.
    with Load(manager.gateway.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 300, workers=16,
              again=True) as load:
        for _ in range(3):
            time.sleep(1)
            new = manager.start()
            manager.words("READY=1")
            old.send_signal(signal.SIGTERM)
            manager.words("STOPPING=1")
            assert old.wait(15) == 0
            old = new
        time.sleep(0.5)
        results = load.stop()
    assert len(results) > 500 and not failed(results), failed(results)[:5]
    assert max(sent.seconds for sent in results) < 3
    old.send_signal(signal.SIGTERM)
    assert old.wait(15) == 0


def test_requests_wait_while_nobody_serves(servers, manager, zoom):
    """Between two programs the kernel keeps what comes in: a full stop and a start lose no request either."""
    first = manager.start()
    manager.words("READY=1")
    manager.gateway.process = first
    manager.gateway.wait()
    first.send_signal(signal.SIGTERM)
    assert first.wait(15) == 0
    with Load(manager.gateway.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 20, workers=4) as load:
        time.sleep(0.5)
        manager.start()
        manager.words("READY=1")
        time.sleep(1)
        results = load.stop()
    assert results and not failed(results), failed(results)[:5]


def test_watchdog(manager):
    manager.start()
    manager.words("READY=1")
    started = time.monotonic()
    for _ in range(3):
        manager.words("WATCHDOG=1")
    assert time.monotonic() - started < 2 * 3  # the manager's patience, each time


def test_socket_that_nobody_wants(servers, manager):
    stranger = manager._listen(0)
    manager.sockets.append(stranger)
    process = manager.start()
    assert process.wait(10) == 2
    with open(manager.gateway.log, encoding="utf-8") as file:
        assert f"127.0.0.1:{stranger.getsockname()[1]}" in file.read()


@pytest.mark.faults
def test_rolling_restart_behind_nginx(servers):
    """Each of three instances is stopped and started again under load: the sender sees nothing at all."""
    with Load(servers.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 500, workers=32) as load:
        for number in range(1, servers.state.instances + 1):
            time.sleep(1)
            views = servers.views(number)
            mark = views.mark()
            gateways.stop(servers.state, number)
            assert [line["msg"] for line in views.lines(mark, "stopped")] == ["everything was answered"]
            servers.start_gateways()
        time.sleep(0.5)
        results = load.stop()
    assert len(results) > 1000 and not failed(results), failed(results)[:5]
    counts = servers.event_ids()
    twice = {sent.event_id for sent in results if counts.get(sent.event_id) != 1}
    assert not twice, f"{len(twice)} of {len(results)} events are not in the topic, or more than once"
