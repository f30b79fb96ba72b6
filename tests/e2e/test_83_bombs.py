"""JSON that is meant to hurt, under a good signature so that it is parsed: each has a defined answer, in bounded time, and
leaves nothing in Kafka unless it is accepted. And requests that come slowly, wrongly or not at all."""
import contextlib
import socket
import ssl
import subprocess
import threading
import time

import pytest

import signing
from client import exchange, head_of, raw_socket, statuses
from harness import frozen, until

MIB = 1 << 20


def inside(text, account):
    """A sound event with something odd as one member of its payload."""
    body = signing.zoom_body(account)
    end = body.rindex(b"}}}")
    return body[:end] + b', "odd": ' + text + body[end:]


def instead(member, text, account):
    """A sound event whose external id, account or type is something odd."""
    body = signing.zoom_body(account, event="meeting.started")
    start = body.index(b'"' + member + b'": ') + len(member) + 4
    end = min(body.index(b",", start), body.index(b"}", start))
    return body[:start] + text + body[end:]


# Name -> (body of an account, status).
BOMBS = {
    "a million brackets": (lambda a: b"[" * (MIB - 10), 400),
    "a million brackets, closed": (lambda a: b"[" * (MIB // 2 - 10) + b"]" * (MIB // 2 - 10), 400),
    "objects in objects": (lambda a: b'{"a":' * (MIB // 6), 400),
    "objects in objects, closed": (lambda a: b'{"a":' * 100_000 + b"1" + b"}" * 100_000, 400),
    "65 deep within an event": (lambda a: inside(b"[" * 65 + b"]" * 65, a), 400),
    "30 deep within an event": (lambda a: inside(b"[" * 25 + b"]" * 25, a), 200),
    "duplicate type": (lambda a: signing.zoom_body(a).replace(b'"event":', b'"event": "meeting.started", "event":', 1), 400),
    "duplicate account": (lambda a: signing.zoom_body(a).replace(b'"account_id":', b'"account_id": "x", "account_id":', 1), 400),
    "duplicate external id": (lambda a: signing.zoom_body(a).replace(b'"uuid":', b'"uuid": "x", "uuid":', 1), 400),
    "duplicate of what nobody reads": (lambda a: inside(b'{"a": 1, "a": 2}', a), 200),
    "100,000 duplicates": (lambda a: inside(b'{"a": 1' + b', "a": 1' * 100_000 + b"}", a), 200),
    "100,000 keys": (lambda a: inside(b"{" + b", ".join(b'"%d": 1' % n for n in range(70_000)) + b"}", a), 200),
    "lone surrogate": (lambda a: inside(b'"\\ud800"', a), 200),
    "two high surrogates": (lambda a: inside(b'"\\ud800\\ud800"', a), 200),
    "low surrogate first": (lambda a: inside(b'"\\udc00\\ud800"', a), 200),
    "lone surrogate in the external id": (lambda a: instead(b"uuid", b'"\\ud800"', a), 200),
    "lone surrogate as a type": (lambda a: instead(b"event", b'"\\ud800"', a), 200),
    "a hundred thousand lone surrogates": (lambda a: inside(b'"' + b"\\ud800" * (MIB // 8) + b'"', a), 200),
    "escaped NUL": (lambda a: inside(b'"a\\u0000b"', a), 200),
    "escaped NUL in the external id": (lambda a: instead(b"uuid", b'"a\\u0000b"', a), 400),
    "NUL byte in a string": (lambda a: inside(b'"a\0b"', a), 400),
    "NUL byte behind": (lambda a: signing.zoom_body(a) + b"\0", 400),
    "control character in a string": (lambda a: inside(b'"a\x01b"', a), 400),
    "invalid UTF-8": (lambda a: inside(b'"\xff\xfe"', a), 400),
    "overlong UTF-8": (lambda a: inside(b'"\xc0\x80"', a), 400),
    "surrogate in UTF-8": (lambda a: inside(b'"\xed\xa0\x80"', a), 400),
    "UTF-8 cut off": (lambda a: inside(b'"\xe2\x82"', a), 400),
    "UTF-16": (lambda a: signing.zoom_body(a).decode().encode("utf-16"), 400),
    "byte order mark": (lambda a: b"\xef\xbb\xbf" + signing.zoom_body(a), 400),
    "1e400": (lambda a: inside(b"1e400", a), 200),
    "-1e-400": (lambda a: inside(b"-1e-400", a), 200),
    "10^400 in digits": (lambda a: inside(b"1" + b"0" * 400, a), 200),
    "half a million digits": (lambda a: inside(b"1" * (MIB // 2), a), 200),
    "half a million digits as an id": (lambda a: instead(b"uuid", b"1" * (MIB // 2), a), 400),
    "half a million letters as an id": (lambda a: instead(b"uuid", b'"' + b"x" * (MIB // 2) + b'"', a), 400),
    "half a million letters as a type": (lambda a: instead(b"event", b'"' + b"x" * (MIB // 2) + b'"', a), 400),
    "half a million letters as an account": (lambda a: instead(b"account_id", b'"' + b"x" * (MIB // 2) + b'"', a), 400),
    "an array as an id": (lambda a: instead(b"uuid", b"[1]", a), 400),
    "NaN": (lambda a: inside(b"NaN", a), 400),
    "Infinity": (lambda a: inside(b"Infinity", a), 400),
    "hex number": (lambda a: inside(b"0x10", a), 400),
    "leading zero": (lambda a: inside(b"010", a), 400),
    "trailing comma": (lambda a: inside(b"[1,]", a), 400),
    "comment": (lambda a: inside(b"1 /* c */", a), 400),
    "single quotes": (lambda a: signing.zoom_body(a).replace(b'"', b"'"), 400),
    "two documents": (lambda a: signing.zoom_body(a) + signing.zoom_body(a), 400),
    "half a document": (lambda a: signing.zoom_body(a)[:-20], 400),
    "a string": (lambda a: b'"zoom"', 400),
    "an array": (lambda a: b"[]", 400),
    "null": (lambda a: b"null", 400),
    "blanks": (lambda a: b" " * 1000, 400),
    "nothing": (lambda a: b"", 400),
    "a million blanks around": (lambda a: b" " * (MIB // 2) + signing.zoom_body(a) + b"\n" * 1000, 200),
    "a million commas": (lambda a: b"[" + b"1," * (MIB // 2 - 10) + b"1]", 400),
}


@pytest.mark.parametrize("name", BOMBS)
def test_json_bomb(servers, name):
    make, expected = BOMBS[name]
    body = make(servers.zoom_account)
    assert len(body) <= MIB
    client = servers.client(servers.direct_url())
    event = signing.zoom_signed(body, servers.secret("zoom"))
    answer = client.post(event)
    assert answer.status == expected, answer.raw[:300]
    if expected == 400:
        assert set(answer.json["error"]) == {"code", "message"}
    # ASan slows this build; a bound that an exponential or quadratic reader would miss by far.
    assert answer.seconds < 2
    # Unsigned, none of it is looked at.
    forged = signing.zoom_signed(body, "forged")
    assert client.post(forged).status == 401
    client.close()


def test_bombs_left_nothing_that_was_refused(servers):
    values = [record.value for record in servers.records()]
    for name, (make, expected) in BOMBS.items():
        if expected == 400 and len(body := make(servers.zoom_account)) > 2000:
            assert body not in values, name


def test_a_bomb_does_not_hold_up_others(servers, zoom):
    """Eight clients post the worst bodies without a pause; others are answered in time."""
    secret, quit_event = servers.secret("zoom"), threading.Event()
    worst = [BOMBS[name][0](servers.zoom_account) for name in
             ("a million brackets", "a million commas", "100,000 keys", "objects in objects, closed")]

    def bomb(body):
        client = servers.client(servers.plain_url())
        while not quit_event.is_set():
            client.post(signing.zoom_signed(body, secret))
        client.close()

    threads = [threading.Thread(target=bomb, args=(body,)) for body in worst * 2]
    for thread in threads:
        thread.start()
    try:
        client = servers.client(servers.plain_url())
        answers = [client.post(zoom()) for _ in range(30)]
        client.close()
    finally:
        quit_event.set()
        for thread in threads:
            thread.join()
    assert {answer.status for answer in answers} == {200}
    assert max(answer.seconds for answer in answers) < 2.5


# ---- slow, half and never ----

def cut_off_after(connection):
    started = time.monotonic()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while connection.recv(4096):
            pass
    return time.monotonic() - started


@pytest.fixture(scope="module")
def patient(servers):
    with servers.gateway("patient-2s", {"listen": {"request": "2s"}}) as gateway:
        yield gateway


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("what", ["nothing", "half a line", "half a head", "no body", "half a body", "half a chunk",
                                  "no last chunk", "after an answer"])
def test_who_never_ends_is_cut_off(servers, patient, zoom, tls, what):
    event = zoom()
    head = head_of(event, **{"content-length": len(event.body)}) + b"\r\n"
    coded = head_of(event, **{"transfer-encoding": "chunked"}) + b"\r\n"
    data = {"nothing": b"", "half a line": head[:20], "half a head": head[:-10], "no body": head,
            "half a body": head + event.body[:50], "half a chunk": coded + b"400\r\nabc",
            "no last chunk": coded + b"3\r\nabc\r\n", "after an answer": head + event.body}[what]
    connection = raw_socket(patient.url if tls else patient.plain_url, servers.ca, timeout=9)
    connection.sendall(data)
    took = cut_off_after(connection)
    connection.close()
    assert 1.5 < took < 5


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_drop_at_a_time_is_cut_off(patient, zoom, where):
    """Each byte is in time, the whole is not."""
    event = zoom()
    head = head_of(event, **{"content-length": len(event.body)}) + b"\r\n"
    connection = raw_socket(patient.plain_url, timeout=9)
    started = time.monotonic()
    if where == "body":
        connection.sendall(head)
    with contextlib.suppress(ConnectionError):
        for byte in (head if where == "head" else event.body):
            connection.sendall(bytes([byte]))
            time.sleep(0.1)
    connection.close()
    assert time.monotonic() - started < 5


def test_handshake_that_never_ends_is_cut_off(patient):
    with socket.create_connection(("127.0.0.1", patient.ports["https"]), 9) as connection:
        connection.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a ClientHello's beginning
        assert 1.5 < cut_off_after(connection) < 6


JUNK = {
    "zeros": b"\0" * 2000, "ones": b"\xff" * 2000, "http": b"POST /webhooks/zoom HTTP/1.1\r\nhost: a\r\n\r\n",
    "ssl 2": b"\x80\x2e\x01\x00\x02" + b"\0" * 60, "alert": b"\x15\x03\x01\x00\x02\x02\x28",
    "record too long": b"\x16\x03\x01\xff\xff" + b"a" * 70000, "hello too long": b"\x16\x03\x01\x40\x00\x01\xff\xff\xff" + b"a" * 16380,
    "application data": b"\x17\x03\x03\x00\x10" + b"a" * 16, "proxy protocol": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
}


@pytest.mark.parametrize("name", JUNK)
def test_junk_instead_of_a_hello(servers, patient, zoom, name):
    with socket.create_connection(("127.0.0.1", patient.ports["https"]), 9) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(JUNK[name])
        assert cut_off_after(connection) < 6
    client = patient.client()
    assert client.post(zoom()).status == 200
    client.close()


def test_junk_inside_tls(patient, servers):
    """A record that does not decrypt ends the connection."""
    context = ssl.create_default_context(cafile=servers.ca)
    with socket.create_connection(("127.0.0.1", patient.ports["https"]), 9) as plain:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                plain.sendall(outgoing.read())
                incoming.write(plain.recv(65536))
        plain.sendall(outgoing.read())
        time.sleep(0.2)  # what comes with the last message of the handshake is looked at with what comes next
        plain.sendall(b"\x17\x03\x03\x00\x20" + b"a" * 32)
        assert cut_off_after(plain) < 1.5


def test_renegotiation_is_refused(servers, patient):
    """TLS 1.2, where a client could ask for it: the connection ends or the wish is denied, and no request comes through."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{patient.ports['https']}", "-tls1_2", "-legacy_renegotiation"],
                          input=b"R\nGET /webhooks/zoom HTTP/1.1\r\nhost: a\r\n\r\n", capture_output=True, timeout=15, check=False)
    told = done.stdout + done.stderr
    assert b"RENEGOTIATING" in told
    assert b"no renegotiation" in told or b"HTTP/1.1" not in done.stdout


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
def test_half_closed(servers, patient, zoom, tls):
    """Who shuts its side after a whole request is answered; who does in the middle of one is closed."""
    event = zoom()
    data = head_of(event, **{"content-length": len(event.body)}) + b"\r\n" + event.body
    for sent, expected in ((data, [200]), (data[:-1], []), (data[:30], []), (b"", [])):
        connection = raw_socket(patient.url if tls else patient.plain_url, servers.ca, timeout=5)
        connection.sendall(sent)
        # Python's unwrap() would wait for the other side's close_notify: TCP's end alone is what hasty clients send.
        socket.socket.shutdown(connection, socket.SHUT_WR)
        received, started = b"", time.monotonic()
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while piece := connection.recv(65536):
                received += piece
        connection.close()
        assert statuses(received) == expected
        assert time.monotonic() - started < 3


def test_many_in_one_segment_while_the_first_is_slow(servers, zoom):
    """Kafka's or Postgres' time belongs to the first; the others wait behind it and are answered in order."""
    client = servers.client(servers.plain_url())
    first = zoom()
    assert client.post(first).status == 200
    client.close()
    fresh, wrong = [zoom() for _ in range(10)], zoom(secret="wrong")
    events = [fresh[0], first, wrong, *fresh[1:], fresh[0]]
    data = b"".join(head_of(e, **{"content-length": len(e.body)}) + b"\r\n" + e.body for e in events)
    with frozen(servers.pid("postgres")):  # the parent alone: sessions go on, and so does time
        received = exchange(servers.plain_url(), data, timeout=2)
    assert statuses(received) == [200, 200, 401, *[200] * 9, 200]
    said = [piece.split(b'"', 1)[0] for piece in received.split(b'"status":"')[1:]]
    assert said == [b"accepted", b"duplicate", *[b"accepted"] * 9, b"duplicate"]


def test_a_crowd_in_one_segment_does_not_stop_the_loop(servers, zoom):
    """Tens of thousands of tiny requests from one client; another one is answered meanwhile."""
    tiny = b"GET /x HTTP/1.1\r\nhost: a\r\n\r\n" * 20000
    connection = raw_socket(servers.plain_url(), timeout=20)
    reader = threading.Thread(target=lambda: [None for _ in iter(lambda: connection.recv(1 << 20), b"")])

    def send():
        with contextlib.suppress(OSError):
            connection.sendall(tiny)
    sender = threading.Thread(target=send)
    sender.start()
    reader.start()
    client = servers.client(servers.plain_url())
    slowest = 0.0
    while sender.is_alive():
        answer = client.post(zoom())
        assert answer.status == 200
        slowest = max(slowest, answer.seconds)
    client.close()
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    reader.join()
    connection.close()
    assert slowest < 2
    until("all closed", lambda: servers.views().metric("hookgate_connections") < 64, 5)
