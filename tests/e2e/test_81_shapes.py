"""Request shapes that two readers could take for two things, through nginx, over TLS and on the plain listener: each is
refused (a closed connection counts), or it is one request, the same for nginx and for the gateway.

A case is raw bytes made from a signed event and a hidden one. What it says of each way is the statuses of the answers.
A 400 ends the connection: where a malformed request ends is anybody's guess, so nothing behind it may be read. The event is recorded, byte for byte, where the answer is 200 and nowhere else; the
hidden one, which no case but pipelining sends as a request, reaches nobody."""
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Callable

import pytest

from client import raw_socket, statuses

WAYS = ("nginx", "tls", "plain")


@dataclass
class Case:
    name: str
    data: Callable  # (event, hidden) -> bytes
    nginx: str
    tls: str
    plain: str
    stays: bool = False  # a 400 that says nothing against the framing


def lines(event, *more, line=None, host="host: localhost", length=True, end="\r\n"):
    """A head: request line, host, the event's headers, its length, then what the case is about."""
    found = [line or f"POST {event.path} HTTP/1.1"]
    found += [host] if host else []
    found += [f"{name}: {value}" for name, value in event.headers.items()]
    found += [f"content-length: {len(event.body)}"] if length else []
    found += more
    return end.join(found).encode("latin-1") + end.encode() * 2


def whole(event):
    return lines(event) + event.body


def chunks(body, size=None):
    size = size or max(1, len(body))
    parts = [body[at:at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def chunked(event, *more, body=None, **how):
    return lines(event, "transfer-encoding: chunked", *more, length=False, **how) + (chunks(event.body) if body is None else body)


def with_line(text, **how):
    """One header line more."""
    return lambda e, h: lines(e, text, **how) + e.body


def instead_of_length(*text):
    """Other framing headers, and behind them what a reader who believes another one takes for a request."""
    return lambda e, h: lines(e, *text, length=False) + chunks(e.body) + whole(h)


def target(line):
    return lambda e, h: lines(e, line=line.replace("PATH", e.path)) + e.body


def split_line(old, new):
    """A head with some bytes replaced."""
    return lambda e, h: lines(e).replace(old, new, 1) + e.body


REFUSED = ("400", "400", "400")
FINE = ("200", "200", "200")
NOT_FOUND = ("404", "404", "404")
NOT_ALLOWED = ("405", "405", "405")


def same(name, data, expected):
    return Case(name, data, *expected)


CASES = [
    # Lengths.
    same("length", lambda e, h: whole(e), FINE),
    same("length with zeros in front", lambda e, h: lines(e, f"content-length: 000{len(e.body)}", length=False) + e.body, FINE),
    same("length and chunked", lambda e, h: lines(e, "transfer-encoding: chunked") + chunks(e.body) + whole(h), REFUSED),
    same("chunked and length", lambda e, h: lines(e, "transfer-encoding: chunked", "content-length: 5", length=False)
         + chunks(e.body) + whole(h), REFUSED),
    same("length and chunked, the length ends it", lambda e, h: lines(e, "transfer-encoding: chunked") + e.body, REFUSED),
    same("two lengths, the second longer", lambda e, h: lines(e, f"content-length: {len(e.body) + len(whole(h))}")
         + e.body + whole(h), REFUSED),
    same("two lengths, the second shorter", lambda e, h: lines(e, "content-length: 0") + e.body + whole(h), REFUSED),
    same("two lengths alike", with_line("content-length: 5"), REFUSED),
    same("two lengths in one line", lambda e, h: lines(e, f"content-length: {len(e.body)}, {len(e.body)}", length=False)
         + e.body, REFUSED),
    same("negative length", instead_of_length("content-length: -1"), REFUSED),
    same("length with a sign", instead_of_length("content-length: +5"), REFUSED),
    same("length in hex", instead_of_length("content-length: 0x5"), REFUSED),
    same("length with a point", instead_of_length("content-length: 5.0"), REFUSED),
    same("empty length", instead_of_length("content-length:"), REFUSED),
    same("length of 2^64", instead_of_length("content-length: 18446744073709551616"), REFUSED),
    same("length of 2^64 + 5", instead_of_length("content-length: 18446744073709551621"), REFUSED),
    Case("length of 2^63 - 1", instead_of_length("content-length: 9223372036854775807"), "413", "413", "413"),
    Case("length above the limit", lambda e, h: lines(e, "content-length: 4000000", length=False) + e.body,
         "413", "413", "413"),
    same("blank before the colon", instead_of_length("content-length : 5"), REFUSED),
    same("tab before the colon", instead_of_length("content-length\t: 5"), REFUSED),
    # A body without framing headers is no body: what follows is the next request, and malformed.
    Case("no length", lambda e, h: lines(e, length=False) + e.body, "401 400", "401 400", "401 400"),
    # Codings.
    same("chunked", lambda e, h: chunked(e), FINE),
    same("chunked in capitals", lambda e, h: lines(e, "TRANSFER-ENCODING: CHUNKED", length=False) + chunks(e.body), FINE),
    same("chunked in small pieces", lambda e, h: chunked(e, body=chunks(e.body, 7)), FINE),
    same("chunked with extensions", lambda e, h: chunked(
        e, body=b"%x;a=b\r\n%s\r\n0\r\n\r\n" % (len(e.body), e.body)), FINE),
    same("chunked with a trailer", lambda e, h: chunked(
        e, body=b"%x\r\n%s\r\n0\r\nx-zm-signature: v0=00\r\n\r\n" % (len(e.body), e.body)), FINE),
    same("chunked twice", instead_of_length("transfer-encoding: chunked", "transfer-encoding: chunked"), REFUSED),
    same("gzip, then chunked", instead_of_length("transfer-encoding: gzip", "transfer-encoding: chunked"), REFUSED),
    Case("chunked, chunked", instead_of_length("transfer-encoding: chunked, chunked"), "501", "400", "400"),
    Case("gzip and chunked", instead_of_length("transfer-encoding: gzip, chunked"), "501", "400", "400"),
    Case("identity", instead_of_length("transfer-encoding: identity"), "501", "400", "400"),
    Case("odd coding", instead_of_length("transfer-encoding: xchunked"), "501", "400", "400"),
    Case("coding in quotes", instead_of_length('transfer-encoding: "chunked"'), "501", "400", "400"),
    Case("coding behind a vertical tab", instead_of_length("transfer-encoding: \x0bchunked"), "501", "400", "400"),
    same("chunked in HTTP/1.0", lambda e, h: chunked(e, line=f"POST {e.path} HTTP/1.0"), REFUSED),
    same("size of a chunk not in hex", lambda e, h: chunked(e, body=b"zz\r\n" + e.body + b"\r\n0\r\n\r\n"), REFUSED),
    same("negative size of a chunk", lambda e, h: chunked(e, body=b"-5\r\n" + e.body + b"\r\n0\r\n\r\n"), REFUSED),
    # libh2o reads a last chunk with an extension, and the rest as its trailer: an empty body, which nobody signed.
    Case("size of a chunk with 0x", lambda e, h: chunked(
        e, body=b"0x%x\r\n%s\r\n0\r\n\r\n" % (len(e.body), e.body)), "400", "401", "401"),
    same("size of a chunk above 2^64", lambda e, h: chunked(
        e, body=b"10000000000000005\r\n" + e.body + b"\r\n0\r\n\r\n"), REFUSED),
    same("chunk longer than its size", lambda e, h: chunked(
        e, body=b"%x\r\n%s\r\n0\r\n\r\n" % (len(e.body) - 3, e.body)), REFUSED),
    # Lines.
    # nginx takes a bare line feed for the end of a line, and writes the request anew: one request for both.
    Case("bare line feeds", lambda e, h: lines(e, end="\n") + e.body, "200", "400", "400"),
    Case("one bare line feed", split_line(b"host: localhost\r\n", b"host: localhost\n"), "200", "400", "400"),
    same("bare line feed hides a length", lambda e, h: lines(e, "x: y\ncontent-length: 0") + e.body, REFUSED),
    same("bare carriage return", with_line("x: y\rcontent-length: 0"), REFUSED),
    same("folded line", with_line("x: a\r\n b"), REFUSED),
    same("folded length", lambda e, h: lines(e, "content-length:\r\n 5", length=False) + e.body, REFUSED),
    same("first header is folded", split_line(b"\r\nhost", b"\r\n host"), REFUSED),
    same("NUL in a value", with_line("x: a\0b"), REFUSED),
    same("NUL in a name", with_line("x\0: a"), REFUSED),
    Case("name without a colon", with_line("nonsense"), "200", "400", "400"),  # nginx drops the line
    same("empty name", with_line(": a"), REFUSED),
    same("empty line in front", lambda e, h: b"\r\n" + whole(e), FINE),
    # Host and version.
    same("no host", with_line("x: y", host=None), REFUSED),
    same("two hosts", with_line("host: other"), REFUSED),
    same("two hosts alike", with_line("host: localhost"), REFUSED),
    same("empty host", with_line("x: y", host="host:"), REFUSED),
    same("host with a path", with_line("x: y", host="host: a/b"), REFUSED),
    same("HTTP/1.0 without a host", lambda e, h: lines(e, line=f"POST {e.path} HTTP/1.0", host=None) + e.body, FINE),
    same("HTTP/0.9", lambda e, h: b"GET /webhooks/zoom\r\n\r\n", REFUSED),
    Case("HTTP/2.0", target("POST PATH HTTP/2.0"), "505", "400", "400"),
    Case("a blank too many", target("POST  PATH HTTP/1.1"), "200", "400", "400"),  # nginx writes it anew
    same("no version", target("POST PATH"), REFUSED),
    same("prior knowledge of HTTP/2", lambda e, h: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", REFUSED),
    same("upgrade to HTTP/2 is not taken", lambda e, h: lines(
        e, "connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__") + e.body, FINE),
    same("upgrade to a WebSocket is not taken", lambda e, h: lines(
        e, "connection: upgrade", "upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==") + e.body, FINE),
    # Targets: what is not spelt exactly is not ours.
    Case("percent-encoded letter", target("POST /webhooks/z%6fom HTTP/1.1"), *NOT_FOUND),
    Case("percent-encoded slash", target("POST /webhooks%2fzoom HTTP/1.1"), *NOT_FOUND),
    Case("dots", target("POST /webhooks/x/../zoom HTTP/1.1"), *NOT_FOUND),
    Case("encoded dots", target("POST /webhooks/x/%2e%2e/zoom HTTP/1.1"), *NOT_FOUND),
    Case("one dot", target("POST /webhooks/./zoom HTTP/1.1"), *NOT_FOUND),
    Case("above the root", target("POST /../webhooks/zoom HTTP/1.1"), "400", "404", "404"),
    Case("two slashes", target("POST //webhooks/zoom HTTP/1.1"), *NOT_FOUND),
    Case("slash at the end", target("POST /webhooks/zoom/ HTTP/1.1"), *NOT_FOUND),
    Case("encoded NUL", target("POST /webhooks/zoom%00 HTTP/1.1"), "400", "404", "404"),
    Case("half an encoding", target("POST /webhooks/zoom% HTTP/1.1"), "400", "404", "404"),
    Case("backslash", target("POST /webhooks\\zoom HTTP/1.1"), *NOT_FOUND),
    Case("fragment", target("POST /webhooks/zoom#x HTTP/1.1"), *NOT_FOUND),
    Case("query", target("POST PATH?a=b HTTP/1.1"), *FINE),
    Case("capitals", target("POST /webhooks/ZOOM HTTP/1.1"), *NOT_FOUND),
    # nginx asks the gateway for the path alone: the same request.
    Case("absolute form", target("POST http://localhostPATH HTTP/1.1"), "200", "404", "404"),
    Case("absolute form of another", target("POST http://other.examplePATH HTTP/1.1"), "200", "404", "404"),
    Case("a name as target", target("POST webhooks/zoom HTTP/1.1"), "400", "404", "404"),
    Case("asterisk", target("OPTIONS * HTTP/1.1"), "400", "404", "404"),
    Case("connect", lambda e, h: b"CONNECT localhost:22 HTTP/1.1\r\nhost: localhost:22\r\n\r\n", "400", "404", "404"),
    same("bytes above ASCII in a target", target("POST /webhooks/zo\xf6m HTTP/1.1"), REFUSED),
    # Methods.
    Case("get", lambda e, h: lines(e, line=f"GET {e.path} HTTP/1.1", length=False), *NOT_ALLOWED),
    Case("head", lambda e, h: lines(e, line=f"HEAD {e.path} HTTP/1.1", length=False), *NOT_ALLOWED),
    Case("options", lambda e, h: lines(e, line=f"OPTIONS {e.path} HTTP/1.1", length=False), *NOT_ALLOWED),
    Case("put", target("PUT PATH HTTP/1.1"), *NOT_ALLOWED),
    Case("trace", target("TRACE PATH HTTP/1.1"), *NOT_ALLOWED),
    Case("method in small letters", target("post PATH HTTP/1.1"), "400", "405", "405"),
    Case("method nobody knows", target("FROB PATH HTTP/1.1"), *NOT_ALLOWED),
    # Amounts.
    Case("99 headers", lambda e, h: lines(e, *[f"x-{n}: y" for n in range(90)]) + e.body, *FINE),
    Case("more than 100 headers", lambda e, h: lines(e, *[f"x-{n}: y" for n in range(120)]) + e.body, *REFUSED),
    Case("headers above the limit", lambda e, h: lines(e, *[f"x-{n}: {'y' * 4000}" for n in range(9)]) + e.body, *REFUSED, stays=True),
    Case("headers above libh2o's limit", lambda e, h: lines(e, *[f"x-{n}: {'y' * 6000}" for n in range(80)]), *REFUSED),
    Case("a long target", lambda e, h: lines(e, line=f"POST {e.path}?{'a' * 60000} HTTP/1.1") + e.body, *REFUSED, stays=True),
    # Expect and encodings.
    Case("100-continue", with_line("expect: 100-continue"), "100 200", "100 200", "100 200"),
    Case("another expectation", with_line("expect: 200-ok"), "200", "417", "417"),
    same("compressed", with_line("content-encoding: gzip"), ("415", "415", "415")),
    same("compressed twice", with_line("content-encoding: gzip, br"), ("415", "415", "415")),
    same("identity encoding", with_line("content-encoding: identity"), FINE),
    # Pipelining: answers in order. The one case in which the hidden event is a request.
    Case("two at once", lambda e, h: whole(e) + whole(h), "200 200", "200 200", "200 200"),
    Case("chunked, then another", lambda e, h: chunked(e) + whole(h), "200 200", "200 200", "200 200"),
    Case("one and half another", lambda e, h: whole(e) + whole(h)[:60], "200", "200", "200"),
    Case("one and rubbish", lambda e, h: whole(e) + b"\0\1\2\3rubbish\r\n\r\n", "200 400", "200 400", "200 400"),
    Case("one after a refused one", lambda e, h: lines(e, "content-length: 1") + whole(h), *REFUSED),
]
PIPELINED = {"two at once", "chunked, then another"}


def converse(url, ca, data, answers, may_stay):
    """The answers, and whether the server closed; ends soon after the wanted number, but waits for the close of a 400."""
    connection = raw_socket(url, ca, 3)
    received, closed, until = b"", False, time.monotonic() + 12
    try:
        connection.sendall(data)
        while time.monotonic() < until:
            got = statuses(received)
            enough = len(got) >= answers and (may_stay or 400 not in got)
            connection.settimeout(0.15 if enough else max(0.1, until - time.monotonic()))
            piece = connection.recv(65536)
            closed = not piece
            if closed:
                break
            received += piece
    except TimeoutError:
        pass
    except (ConnectionError, ssl.SSLError):
        closed = True
    finally:
        connection.close()
    return statuses(received), closed


def url_of(servers, way):
    return {"nginx": servers.url, "tls": servers.direct_url(), "plain": servers.plain_url()}[way]


@dataclass
class Sent:
    case: Case
    way: str
    event: object
    hidden: object
    told: list


@pytest.fixture(scope="module")
def sent():
    return []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_shape(servers, zoom, sent, case):
    wrong = []
    for way in WAYS:
        event, hidden = zoom(), zoom()
        expected = [int(word) for word in getattr(case, way).split()]
        # nginx passes on a 400 of ours and goes on: it knows where the request ended.
        may_stay = way == "nginx" or case.stays
        told, closed = converse(url_of(servers, way), servers.ca, case.data(event, hidden), len(expected), may_stay)
        sent.append(Sent(case, way, event, hidden, told))
        # A closed connection counts as 400: what the sender still sends may outrun the answer.
        if told != expected and not (closed and told == [status for status in expected if status != 400]):
            wrong.append(f"{way}: {told}, {'closed' if closed else 'open'}")
        elif 400 in told and not closed and not may_stay:
            wrong.append(f"{way}: still open after 400")
    assert not wrong


def test_there_are_enough_shapes():
    assert len(CASES) >= 60 and len({case.name for case in CASES}) == len(CASES)


def test_what_passed_is_recorded_and_nothing_else(servers, sent):
    """nginx and the gateway agreed: each event that was answered 200 is there once with its exact body, no other is, and
    nothing hidden was taken for a request."""
    assert len(sent) == len(CASES) * len(WAYS)
    counts = {}
    for record in servers.records():
        counts[record.value] = counts.get(record.value, 0) + 1
    wrong = []
    for one in sent:
        want = 1 if 200 in one.told else 0
        want_hidden = 1 if one.case.name in PIPELINED else 0
        if (counts.get(one.event.body, 0), counts.get(one.hidden.body, 0)) != (want, want_hidden):
            wrong.append((one.case.name, one.way, counts.get(one.event.body, 0), counts.get(one.hidden.body, 0)))
    assert not wrong


def test_a_request_in_pieces_around_every_line(servers, zoom):
    """The head is judged whole, however it came."""
    event = zoom()
    data = lines(event, "transfer-encoding: chunked") + chunks(event.body)
    connection = raw_socket(servers.plain_url())
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for piece in data.splitlines(keepends=True):
        connection.sendall(piece)
        time.sleep(0.005)
    received = connection.recv(65536)
    connection.close()
    assert statuses(received) == [400]
