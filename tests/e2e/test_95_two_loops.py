"""Two event loops in one process, with everything at once that crosses between threads: deliveries of all kinds, a
directory that changes, reloads, scrapes, lost sessions, security events and the end. Run under TSan by `tests/run tsan`."""
import contextlib
import json
import signal
import threading
import time

import pytest

import signing
from harness import until
from load import Load

pytestmark = pytest.mark.tsan


@contextlib.contextmanager
def background(*jobs):
    """Runs each job over and over until the block ends; what one of them raised is raised here."""
    stop, raised = threading.Event(), []

    def repeat(job):
        try:
            while not stop.is_set():
                job()
        except Exception as error:  # pylint: disable=broad-except
            raised.append(error)

    threads = [threading.Thread(target=repeat, args=(job,), daemon=True) for job in jobs]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(20)
    assert not raised, raised


def unusual(servers, gateway, zoom, fireflies, otter):
    """A job: one delivery of each kind that is not simply accepted, on a connection of its own."""
    challenge = json.dumps({"event": "endpoint.url_validation", "event_ts": int(time.time() * 1000),
                            "payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}}).encode()

    def job():
        made = gateway.client()
        known = zoom()
        now = int(time.time())
        try:
            for event, wanted in ((known, {200, 503}), (known, {200, 503}), (fireflies(), {200, 503}), (otter(), {200, 503}),
                                  (zoom(secret="wrong"), {401}), (zoom(timestamp=now - 4000), {401}),
                                  (otter(token="NobodysToken0123456789"), {404}), (zoom(event="zoomroom.alert"), {200}),
                                  (signing.zoom_signed(challenge, servers.secret("zoom")), {200})):
                assert made.post(event).status in wanted
        finally:
            made.close()
    return job


def test_everything_at_once(servers, zoom, fireflies, otter):
    with servers.gateway("two-loops", {"threads": 2}) as two:
        def scrape():
            for path in ("/metrics", "/readyz", "/livez", "/webhooks/zoom/endpoint-url"):
                two.admin(path)
            time.sleep(0.05)

        def change_the_directory():
            servers.query("INSERT INTO core.workspaces (workspace_id) VALUES ('passing') ON CONFLICT DO NOTHING")
            servers.query("INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('passing', 'zoom', '{PassingAccount}')")
            time.sleep(0.2)
            servers.query("DELETE FROM core.workspaces WHERE workspace_id = 'passing'")

        def reload():
            two.send_signal(signal.SIGHUP)
            time.sleep(0.5)

        with Load(two.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 100, workers=16) as load, \
                background(unusual(servers, two, zoom, fireflies, otter), scrape, change_the_directory, reload):
            time.sleep(5)
            servers.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                          "WHERE application_name = 'hookgate'")
            time.sleep(4)
            results = load.stop()
        words = {sent.word for sent in results}
        assert {sent.status for sent in results} <= {200, 503}, words
        assert sum(sent.word == "accepted" for sent in results) > 300, words
        until("ready again", lambda: two.admin("/readyz").status == 200, 10)
        two.process.terminate()
        assert two.process.wait(30) == 0
