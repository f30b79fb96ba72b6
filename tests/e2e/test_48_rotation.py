"""Secrets are replaced while events come in through nginx on three instances: senders may switch at any
time between the first moment and the last, and none of them is refused."""
import contextlib
import os
import secrets
import threading
import time
import uuid

import pytest
import yaml

import signing
from devtool import gateway
from harness import until, write_secret

SENDERS = 12


class Senders:
    """Each sends with the old secret until its own moment, then with the new one."""

    def __init__(self, servers, make, old, new):
        self._servers, self._make, self._old, self._new = servers, make, old, new
        self._stop = threading.Event()
        self._switch = [None] * SENDERS  # wall clock
        self.sent = []  # (moment, was it the new one, status, what was told)
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(SENDERS)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def switch_between(self, first, last):
        """Evenly, so that some are very early and some are very late."""
        self._switch = [first + (last - first) * n / (SENDERS - 1) for n in range(SENDERS)]

    def _work(self, number):
        client = self._servers.client()
        while not self._stop.wait(0.05):
            moment = time.time()
            fresh = self._switch[number] is not None and moment >= self._switch[number]
            answer = client.post(self._make(self._new if fresh else self._old))
            self.sent.append((moment, fresh, answer.status, answer.raw))
        client.close()

    def refused(self):
        return [sent for sent in self.sent if sent[2] != 200]


def post_to(servers, number, event):
    client = servers.client(servers.direct_url(number))
    try:
        return client.post(event)
    finally:
        client.close()


def numbers(servers):
    return range(1, servers.state.instances + 1)


def wait_for_all(servers, make, secret, status, seconds):
    """Until every instance answers so; returns how long the last one took."""
    began = time.monotonic()
    for number in numbers(servers):
        until(f"instance {number}", lambda n=number: post_to(servers, n, make(secret)).status == status, seconds, 0.02)
    return time.monotonic() - began


def check_the_end(servers, make, old, ends):
    """Each instance takes the old secret up to its not-after and not a second longer."""
    time.sleep(max(0.0, ends - 0.4 - time.time()))
    for number in numbers(servers):
        assert post_to(servers, number, make(old)).status == 200, f"instance {number}, before the end"
    assert time.time() < ends, "the machine is too slow for this test to mean anything"
    time.sleep(max(0.0, ends + 0.05 - time.time()))
    for number in numbers(servers):
        assert post_to(servers, number, make(old)).status == 401, f"instance {number}, after the end"


@contextlib.contextmanager
def application_secrets(servers):
    """Sets zoom's secret files on all instances, and puts back what was there."""
    paths = [gateway.config_path(servers.state, number) for number in numbers(servers)]
    texts = [open(path, encoding="utf-8").read() for path in paths]

    def put(files):
        for path in paths:
            with open(path, encoding="utf-8") as file:
                config = yaml.safe_load(file)
            config["platforms"]["enabled"]["zoom"]["secret_files"] = files
            with open(path, "w", encoding="utf-8") as file:
                yaml.safe_dump(config, file, sort_keys=False)
        for path in paths:
            done = servers.command("reload", "--config", path)
            assert done.returncode == 0, done

    try:
        yield put
    finally:
        for path, text in zip(paths, texts):
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)
            assert servers.command("reload", "--config", path).returncode == 0


def used(servers, **labels):
    return servers.metric("hookgate_signatures_total", platform="zoom", **labels)


def test_an_application_secret_is_replaced(servers):
    old, new = servers.secret("zoom"), secrets.token_urlsafe(16)
    new_file = write_secret(os.path.join(servers.state.make_directory("extra"), "zoom-new"), new)

    def make(secret):
        return signing.zoom_signed(signing.zoom_body(servers.zoom_account), secret)

    with application_secrets(servers) as put, Senders(servers, make, old, new) as senders:
        time.sleep(0.5)
        ends = time.time() + 7
        written = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ends)) + "Z"
        ends = float(int(ends))
        put([new_file, {"file": servers.secret_file("zoom"), "not_after": written}])
        assert wait_for_all(servers, make, new, 200, 2) < 2
        assert ends - time.time() > 3, "the machine is too slow for this test to mean anything"
        senders.switch_between(time.time(), ends - 0.5)
        check_the_end(servers, make, old, ends)
        fresh = used(servers, kind="application", secret="zoom-new")
        stale = used(servers, kind="application", secret="zoom")
        time.sleep(1)
        assert used(servers, kind="application", secret="zoom-new") > fresh > 0
        assert used(servers, kind="application", secret="zoom") == stale > 0
    assert len(senders.sent) > 200 and {fresh for _, fresh, _, _ in senders.sent} == {False, True}
    assert senders.refused() == []


@pytest.fixture
def endpoint(servers):
    """An integration with an endpoint of its own: (id, token)."""
    token = secrets.token_urlsafe(24)
    integration = str(uuid.uuid4())
    servers.query("INSERT INTO core.integrations (integration_id, workspace_id, platform, endpoint_token) "
                  "VALUES (%s, 'demo', 'zoom', %s)", integration, token)
    yield integration, token
    servers.query("DELETE FROM core.integrations WHERE integration_id = %s", integration)


def store(servers, integration, secret, state):
    done = servers.command("seal", "--key-file", servers.secret_file("integrations.key"), "--integration", integration,
                           stdin=secret.encode())
    assert done.returncode == 0, done
    servers.query("INSERT INTO core.integration_secrets (integration_id, state, sealed) VALUES (%s, %s, %s::bytea)",
                  integration, state, done.stdout.decode().strip())


def test_an_integrations_secret_is_replaced(servers, endpoint):
    """By SQL alone, as the README has it."""
    integration, token = endpoint
    old, new = "old-" + secrets.token_urlsafe(16), "new-" + secrets.token_urlsafe(16)

    def make(secret):
        # An account of its own would name another workspace.
        return signing.zoom_signed(signing.zoom_body(servers.zoom_account), secret, path=f"/webhooks/zoom/{token}")

    store(servers, integration, old, "current")
    wait_for_all(servers, make, old, 200, 2)
    with Senders(servers, make, old, new) as senders:
        time.sleep(0.5)
        before = used(servers, kind="integration", secret="next")
        store(servers, integration, new, "next")
        took = wait_for_all(servers, make, new, 200, 2)
        assert took < 2
        assert used(servers, kind="integration", secret="next") >= before + 3
        ends = time.time() + 4  # before the instances read again by themselves, 5 s after the change
        first = servers.query("SELECT secret_id FROM core.integration_secrets WHERE integration_id = %s "
                              "AND state = 'current'", integration)[0][0]
        servers.query("BEGIN; UPDATE core.integration_secrets SET state = 'retiring', not_after = to_timestamp(%s) "
                      "WHERE integration_id = %s AND state = 'current'; UPDATE core.integration_secrets "
                      "SET state = 'current' WHERE integration_id = %s AND state = 'next'; COMMIT",
                      ends, integration, integration)
        changed = time.time()
        senders.switch_between(changed, ends - 0.5)
        retiring = used(servers, kind="integration", secret="retiring")
        until("the change on all instances", lambda: used(servers, kind="integration", secret="retiring") > retiring, 2)
        answer = post_to(servers, 2, make(old))
        [receipt] = servers.receipts(answer.json["webhook_event_id"])
        record = servers.record_at("webhooks.zoom", receipt["kafka_partition"], receipt["kafka_offset"])
        assert record.header("hookgate-secret") == str(first)
        check_the_end(servers, make, old, ends)
    assert len(senders.sent) > 150 and {fresh for _, fresh, _, _ in senders.sent} == {False, True}
    assert senders.refused() == []


def test_a_change_is_live_on_all_instances_within_two_seconds(servers, endpoint):
    """Ten times, so that luck with the timer can't do it: the timer alone takes up to five seconds."""
    integration, token = endpoint

    def make(secret):
        return signing.zoom_signed(signing.zoom_body(servers.zoom_account), secret, path=f"/webhooks/zoom/{token}")

    for number in range(10):
        servers.query("DELETE FROM core.integration_secrets WHERE integration_id = %s", integration)
        secret = f"secret-{number}-" + secrets.token_urlsafe(16)
        store(servers, integration, secret, "current")
        assert wait_for_all(servers, make, secret, 200, 2) < 2


def test_the_key_file_is_rotated(servers, endpoint):
    integration, token = endpoint
    key_file = servers.secret_file("integrations.key")
    first = open(key_file, encoding="ascii").read()
    config = gateway.config_path(servers.state, 1)

    def make(secret):
        return signing.zoom_signed(signing.zoom_body(servers.zoom_account), secret, path=f"/webhooks/zoom/{token}")

    def rotate():
        done = servers.command("seal", "--rotate", "--config", config)
        return done.returncode, done.stdout.decode(), done.stderr.decode()

    secret = "hush-" + secrets.token_urlsafe(16)
    store(servers, integration, secret, "current")
    wait_for_all(servers, make, secret, 200, 2)
    total = servers.query("SELECT count(*) FROM core.integration_secrets")[0][0]
    assert rotate() == (0, f"0 sealed anew, {total} sealed with the first key already, "
                           "0 that no key of the file opens\n", "")
    second = servers.command("seal", "--new-key").stdout.decode()
    try:
        with Senders(servers, make, secret, secret) as senders:
            write_secret(key_file, second.strip(), first.strip())
            before = servers.query("SELECT sealed FROM core.integration_secrets WHERE integration_id = %s", integration)
            assert rotate()[:2] == (0, f"{total} sealed anew, 0 sealed with the first key already, "
                                       "0 that no key of the file opens\n")
            after = servers.query("SELECT sealed FROM core.integration_secrets WHERE integration_id = %s", integration)
            assert bytes(before[0][0]) != bytes(after[0][0])
            assert rotate()[:2] == (0, f"0 sealed anew, {total} sealed with the first key already, "
                                       "0 that no key of the file opens\n")
            write_secret(key_file, second.strip())  # the old key goes
            assert rotate()[0] == 0
            servers.query("UPDATE core.integrations SET status = status")  # all instances read again
            time.sleep(1)
            for number in numbers(servers):
                assert post_to(servers, number, make(secret)).status == 200
        assert senders.refused() == [] and len(senders.sent) > 20
        # With a key that fits nothing, every row is told and left alone.
        write_secret(key_file, first.strip())
        status, out, err = rotate()
        assert status == 1 and f"{total} that no key of the file opens" in out
        assert err.count("opens with no key of the file") == total
    finally:
        write_secret(key_file, first.strip(), second.strip())
        assert rotate()[0] == 0
        write_secret(key_file, first.strip())
        wait_for_all(servers, make, secret, 200, 8)
