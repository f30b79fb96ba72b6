"""deploy/dev after a server was killed: what it left is ended, and it comes back where it was."""
import os
import signal
import subprocess
import sys

import pytest

from harness import ROOT, nginx, postgres, process, until

pytestmark = pytest.mark.faults


def sessions(leader):
    """Live processes of a session, read without deploy/dev's code."""
    listed = subprocess.run(["ps", "-e", "-o", "pid=,sid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    return [int(pid) for pid, session, state in rows if int(session) == leader and state[0] != "Z"]


def kill(servers, name):
    """The leader alone; as its parent we also collect it, which init does for deploy/dev."""
    assert process.stop(servers.state.record(name), signal.SIGKILL, 5)


def status(servers):
    return subprocess.run([sys.executable, "-B", "-m", "devtool", "status"], capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": os.path.join(ROOT, "deploy"),
                               "HOOKGATE_DEV_DIR": servers.state.directory}, check=False)


def test_nginx_killed_comes_back_on_its_port(servers, zoom):
    port, master = servers.state.port("nginx"), servers.pid("nginx")
    assert len(sessions(master)) > 1, "nginx and its workers are one session"
    kill(servers, "nginx")
    assert sessions(master), "the workers outlive their master: else there is nothing to test"
    told = status(servers)
    assert told.returncode == 1 and "killed, left" in told.stdout, told.stdout + told.stderr
    nginx.start_or_reload(servers.state)
    assert servers.state.port("nginx") == port
    assert not sessions(master)
    made = servers.client()
    assert made.post(zoom()).status == 200
    made.close()


def test_nginx_killed_is_stopped_whole(servers):
    port, master = servers.state.port("nginx"), servers.pid("nginx")
    kill(servers, "nginx")
    try:
        nginx.stop(servers.state)
        assert not sessions(master)
    finally:
        nginx.start_or_reload(servers.state)
    assert servers.state.port("nginx") == port and servers.pid("nginx") != master


def test_a_stranger_with_the_recorded_session_is_left_alone(servers):
    """The session's number belongs to somebody else by now: its program is not the server's."""
    stranger = subprocess.Popen(["sh", "-c", "sleep 60 & wait"], start_new_session=True)
    try:
        until("its child", lambda: len(sessions(stranger.pid)) == 2)
        record = {**servers.state.record("nginx"), "pid": stranger.pid, "start": 0}
        assert process.orphans(record) == []
    finally:
        os.killpg(stranger.pid, signal.SIGKILL)
        stranger.wait()


def test_postgres_killed_comes_back_on_its_port(servers, zoom):
    port = servers.state.port("postgres")
    kill(servers, "postgres")
    servers.start_postgres()
    assert servers.state.port("postgres") == port and not postgres.orphans(servers.state)
    made = servers.client()
    until("an accepted event", lambda: made.post(zoom()).status == 200, 10)
    made.close()
