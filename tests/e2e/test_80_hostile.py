"""Clients that misbehave: each has a defined answer or a closed connection, and the next client is served. What two
readers could take for two requests is in test_81_shapes.py."""
import socket
import ssl
import threading
import time

import pytest

from client import exchange, head_of, raw_socket, statuses

def alive(servers, zoom, url):
    made = servers.client(url)
    assert made.post(zoom()).status == 200
    made.close()


JUNK = {"zeros": b"\0" * 4096, "text": b"hello\r\n\r\n", "not http": b"GET\r\n\r\n", "newlines": b"\r\n" * 100,
        "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "long line": b"POST /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
        "many headers": b"POST /webhooks/zoom HTTP/1.1\r\nhost: a\r\n" + b"a: b\r\n" * 5000 + b"\r\n",
        "connect": b"CONNECT localhost:22 HTTP/1.1\r\nhost: localhost\r\n\r\n"}


@pytest.mark.parametrize("name", JUNK)
def test_junk_inside_tls_and_in_plain(servers, zoom, name):
    for url in (servers.url, servers.direct_url(), servers.plain_url()):
        received = exchange(url, JUNK[name], servers.ca, timeout=1, end=url.startswith("http:"))
        assert all(status >= 400 for status in statuses(received)), received[:300]
        alive(servers, zoom, url)


def test_plain_text_to_the_tls_port(servers, zoom):
    url = servers.direct_url()
    received = exchange(url.replace("https", "http"), b"POST /webhooks/zoom HTTP/1.1\r\n\r\n", timeout=2)
    assert not received.startswith(b"HTTP/1.1 200")
    alive(servers, zoom, url)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_versions(servers, version):
    context = ssl.create_default_context(cafile=servers.ca)
    context.minimum_version = context.maximum_version = version
    address = ("127.0.0.1", int(servers.direct_url().rsplit(":", 1)[1]))
    with socket.create_connection(address, 5) as plain, context.wrap_socket(plain, server_hostname="localhost") as tls:
        assert tls.version() == {ssl.TLSVersion.TLSv1_2: "TLSv1.2", ssl.TLSVersion.TLSv1_3: "TLSv1.3"}[version]


def test_old_tls_is_refused(servers):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(servers.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    address = ("127.0.0.1", int(servers.direct_url().rsplit(":", 1)[1]))
    with socket.create_connection(address, 5) as plain, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(plain, server_hostname="localhost")


def test_byte_by_byte(servers, zoom):
    event = zoom(event="meeting.started")
    data = head_of(event, **{"content-length": len(event.body), "connection": "close"}) + b"\r\n" + event.body
    connection = raw_socket(servers.plain_url())
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for position in range(len(data)):
        connection.sendall(data[position:position + 1])
    received = b""
    while piece := connection.recv(65536):
        received += piece
    connection.close()
    assert statuses(received) == [200]


def test_chunked_body(servers, zoom):
    event = zoom()
    middle = len(event.body) // 2
    parts = (event.body[:middle], event.body[middle:], b"")
    data = head_of(event, **{"transfer-encoding": "chunked", "connection": "close"}) + b"\r\n"
    data += b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    for url in (servers.url, servers.direct_url()):
        assert statuses(exchange(url, data, servers.ca, timeout=5))[:1] == [200]


def test_pipelined_requests_are_answered_in_order(servers, zoom):
    events = [zoom(), zoom(secret="wrong"), zoom()]
    data = b"".join(head_of(e, **{"content-length": len(e.body)}) + b"\r\n" + e.body for e in events)
    assert statuses(exchange(servers.plain_url(), data, timeout=3)) == [200, 401, 200]


def test_a_client_that_leaves_has_its_event_recorded_once(servers, zoom):
    """It sent all and hung up before the answer: its retry is a duplicate, or the first that counts."""
    events = [zoom() for _ in range(20)]
    for event in events:
        connection = raw_socket(servers.plain_url())
        connection.sendall(head_of(event, **{"content-length": len(event.body)}) + b"\r\n" + event.body)
        connection.close()
    time.sleep(0.5)
    made = servers.client()
    told = [made.post(event).json for event in events]
    made.close()
    assert {t["status"] for t in told} <= {"accepted", "duplicate"}
    counts = servers.event_ids()
    assert [counts.get(t["webhook_event_id"]) for t in told] == [1] * len(told)


def test_half_closed_client_is_answered(servers, zoom):
    event = zoom()
    data = head_of(event, **{"content-length": len(event.body), "connection": "close"}) + b"\r\n" + event.body
    assert statuses(exchange(servers.plain_url(), data, timeout=4, end=True)) == [200]
    alive(servers, zoom, servers.plain_url())


def test_slow_clients_do_not_stop_others(servers, zoom):
    """A hundred that never finish, in head or body, and one that is served beside them."""
    event = zoom()
    head = head_of(event, **{"content-length": len(event.body)})
    slow = [raw_socket(servers.plain_url()) for _ in range(100)]
    try:
        for number, connection in enumerate(slow):
            connection.sendall(head[:40] if number % 2 else head + b"\r\n" + event.body[:10])
        made = servers.client(servers.plain_url())
        took = [made.post(zoom()) for _ in range(20)]
        made.close()
        assert {answer.status for answer in took} == {200}
        assert max(answer.seconds for answer in took) < 2
    finally:
        for connection in slow:
            connection.close()


def test_slow_request_is_cut_off(servers):
    with servers.gateway("patient", {"listen": {"request": "1s"}}) as patient:
        connection = raw_socket(patient.plain_url, timeout=5)
        connection.sendall(b"POST /webhooks/zoom HTTP/1.1\r\nhost: a\r\n")
        started = time.monotonic()
        while connection.recv(4096):
            pass
        assert time.monotonic() - started < 4
        connection.close()


def test_connections_over_the_limit_wait_and_are_served(servers, zoom):
    with servers.gateway("narrow", {"listen": {"connections": 20}}) as narrow:
        idle = [raw_socket(narrow.plain_url) for _ in range(20)]
        time.sleep(0.2)
        answers = []

        def one():
            made = servers.client(narrow.plain_url)
            answers.append(made.post(zoom()))
            made.close()

        thread = threading.Thread(target=one)
        thread.start()
        time.sleep(0.3)
        assert narrow.admin("/livez").status == 200
        for connection in idle:
            connection.close()
        thread.join(8)
        assert [answer.status for answer in answers] == [200]
