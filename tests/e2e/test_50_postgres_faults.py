"""Postgres lets sessions go or blocks a key: honest refusals in time, nothing claimed and left, nothing lost, and
service comes back by itself. What happens while it is away is test_65_hold.py's."""
import concurrent.futures
import contextlib
import json
import socket
import socketserver
import struct
import threading
import time

import psycopg2
import pytest

import signing
from harness import percentile, postgres, steady, until
from load import Load, all_taken, each_once, under_load

pytestmark = pytest.mark.faults


def back_within(servers, results, returned, seconds=5):
    first = min((sent.at + sent.seconds for sent in results if sent.status == 200 and sent.at > returned), default=None)
    assert first is not None, "no event was accepted after the server's return"
    assert first - returned <= seconds, f"the first event was accepted {first - returned:.1f} s after the return"
    # Not one loop of one instance alone: all of them.
    later = [sent for sent in results if sent.at > returned + seconds]
    assert later, "the load ended too early to tell"
    refused = [sent for sent in later if sent.status != 200]
    assert not refused, f"{len(refused)} of {len(later)} were refused more than {seconds} s after the return: {refused[:3]}"


@contextlib.contextmanager
def sessions_ended(servers):
    for _ in range(12):
        servers.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                      "WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'")
        time.sleep(0.3)
    yield


def test_sessions_ended(servers):
    """What a failover or an administrator does: every session ends, again and again, the server stays. What is in
    Kafka already is claimed again over the next session: nobody is refused, nothing is doubled."""
    before = servers.metric("hookgate_store_reclaimed_total")
    doubles = servers.metric("hookgate_possible_doubles_total")
    results, returned = under_load(servers, sessions_ended(servers), outage=0.0)
    all_taken(results)
    back_within(servers, results, returned)
    reclaimed = servers.metric("hookgate_store_reclaimed_total") - before
    print(f"{len(results)} events, {reclaimed:.0f} claimed again")
    assert reclaimed > 0, "no session ended over an acknowledgement: this proves nothing"
    each_once(servers, results)
    assert servers.metric("hookgate_possible_doubles_total") == doubles


@pytest.mark.all_faults
def test_a_copy_that_is_quicker_than_a_commit_that_never_came(servers, zoom):
    """COMMIT was sent and not executed, and the copy on another instance took the key. The second record is counted."""
    event, answers = zoom(), [None, None]
    clients = [servers.client(servers.direct_url(number)) for number in (1, 2)]
    assert [made.post(zoom()).status for made in clients] == [200, 200]  # connected
    before = [views.metric("hookgate_possible_doubles_total", cause="store_lost") for views in servers.all_views()]

    def post(number):
        answers[number] = clients[number].post(event)

    threads = [threading.Thread(target=post, args=(number,)) for number in (0, 1)]
    with contextlib.closing(psycopg2.connect(postgres.conninfo(servers.state))) as holder, holder.cursor() as cursor:
        cursor.execute("LOCK TABLE mcp.webhook_events IN SHARE MODE")
        threads[0].start()
        time.sleep(0.3)
        threads[1].start()
        time.sleep(0.5)
        cursor.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'relation' "
                       "AND query LIKE 'INSERT INTO mcp.webhook_events%'")
        assert cursor.rowcount > 0  # and perhaps the next connection, which prepares its statements
        time.sleep(0.05)
        holder.rollback()
    for thread in threads:
        thread.join()
    for made in clients:
        made.close()
    assert answers[1].status == 200 and max(answer.seconds for answer in answers) < 3
    event_id = answers[1].json["webhook_event_id"]
    assert servers.event_ids()[event_id] == 2, "the copy was not quicker: this proves nothing"
    assert len(servers.receipts(event_id)) == 1
    after = [views.metric("hookgate_possible_doubles_total", cause="store_lost") for views in servers.all_views()]
    assert [new - old for old, new in zip(before, after)] == [1, 0, 0]


def test_an_instance_that_can_hold_is_ready_and_challenges_are_answered(servers):
    with servers.without_postgres():
        until("it holds", lambda: servers.views().metric("hookgate_holding") == 1, 5)
        for _ in range(20):
            assert servers.views().admin("/readyz").status == 200
            time.sleep(0.1)
        assert servers.views().admin("/livez").status == 200
        made = servers.client()
        answer = made.post(signing.zoom_validation(servers.secret("zoom")))
        assert answer.status == 200 and "encryptedToken" in answer.json
        assert made.post(signing.zoom_validation("wrong")).status == 401
        made.close()
    until("none holds any more", lambda: servers.metric("hookgate_holding") == 0, 10)


def test_a_slow_neighbour_does_not_stop_others(servers, zoom):
    """Another transaction holds some keys: those events wait or are refused, all others pass, also who waited behind one
    of them and went into a batch with the next."""
    blocked = [zoom() for _ in range(6)]
    made = servers.client()
    known = made.post(zoom()).json
    assert known["status"] == "accepted"
    names = [json.loads(event.body)["payload"]["object"]["uuid"] for event in blocked]
    ids = [signing.event_id_of("demo", "zoom", "recording.completed", name) for name in names]

    def post(event):
        own = servers.client(servers.direct_url())
        try:
            return own.post(event)
        finally:
            own.close()

    with contextlib.closing(psycopg2.connect(postgres.conninfo(servers.state))) as holder:
        with holder.cursor() as cursor:
            cursor.execute("INSERT INTO mcp.webhook_claims SELECT unnest(%s::uuid[]), now()", [ids])
            with Load(servers.url, servers.ca, servers.secret("zoom"), servers.zoom_account, 100, workers=32) as load, \
                    concurrent.futures.ThreadPoolExecutor(len(blocked)) as pool:
                time.sleep(0.5)
                answers = []
                for event in blocked:
                    answers.append(pool.submit(post, event))
                    time.sleep(0.15)
                time.sleep(1)
                answers = [answer.result() for answer in answers]
                results = load.stop()
        assert all(answer.status == 503 and answer.retry_after and answer.seconds < 3 for answer in answers)
        holder.rollback()
    assert {sent.status for sent in results} == {200}, [sent for sent in results if sent.status != 200][:3]
    assert percentile([sent.seconds for sent in results], 1.0) < 3
    for event, event_id in zip(blocked, ids):
        assert steady(servers, made, lambda event=event: event) < 5
        assert len(servers.receipts(event_id)) == 1
    made.close()


@contextlib.contextmanager
def silent_port(dead):
    """Of a host without power (its backlog is full, so the kernel drops what comes), or of a server that is frozen."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0 if dead else 64))
        for _ in range(4 if dead else 0):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield listener.getsockname()[1]


@pytest.mark.parametrize("dead", [True, False], ids=["dead", "frozen"])
def test_a_silent_server_before_the_one_that_takes_writes(servers, zoom, dead):
    """A failover that the first of the list does not tell of: all connections go on to the next one."""
    with silent_port(dead) as port:
        real = postgres.conninfo(servers.state)
        conninfo = real.replace("host=", "host=127.0.0.1,").replace("port=", f"port={port},") + \
            " target_session_attrs=read-write"
        began = time.monotonic()
        with servers.gateway("silent", {"postgres": {"conninfo": conninfo}}) as gateway:
            until("events go to Postgres", lambda: gateway.metric("hookgate_holding") == 0, 6)
            took = time.monotonic() - began
            made = gateway.client()
            answer = made.post(zoom())
            made.close()
            assert answer.status == 200 and len(servers.receipts(answer.json["webhook_event_id"])) == 1
            assert took < 6, f"the right server was found after {took:.1f} s"
            assert gateway.terminate() == 0


class Pooler(socketserver.ThreadingTCPServer):
    """Does with a session's settings what PgBouncer does that ignores the startup parameter `options`: drops them."""
    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), PooledSession)
        self.target = target


class PooledSession(socketserver.BaseRequestHandler):
    def handle(self):
        while True:
            length, code = struct.unpack("!II", self.request.recv(8, socket.MSG_WAITALL))
            if code == 3 << 16:
                break
            self.request.sendall(b"N")  # no TLS, no GSSAPI
        words = self.request.recv(length - 8, socket.MSG_WAITALL).split(b"\0")
        kept = [word for pair in zip(words[::2], words[1::2]) if pair[0] not in (b"", b"options") for word in pair]
        payload = b"\0".join(kept) + b"\0\0"
        with socket.create_connection(self.server.target) as server:
            server.sendall(struct.pack("!II", len(payload) + 8, code) + payload)
            back = threading.Thread(target=self.pump, args=(server, self.request), daemon=True)
            back.start()
            self.pump(self.request, server)
            back.join()

    @staticmethod
    def pump(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def test_a_pooler_that_drops_our_settings_is_refused(servers):
    """What is acknowledged over it might not be durable; the log says why."""
    with Pooler(("127.0.0.1", servers.state.port("postgres"))) as pooler:
        threading.Thread(target=pooler.serve_forever, daemon=True).start()
        conninfo = (f"host=127.0.0.1 port={pooler.server_address[1]} user={postgres.USER} dbname={postgres.DATABASE}")
        with servers.gateway("pooled", {"postgres": {"conninfo": conninfo}}, wait=False) as gateway:
            for event in ("store_unreachable", "directory_lost"):
                line = gateway.wait_line(0, lambda line, event=event: line["event"] == event, 10)
                assert "did not take our session's settings" in line["msg"], line
                assert "statement_timeout is 0" in line["msg"], line
        pooler.shutdown()
