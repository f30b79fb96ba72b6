"""An HTTPS client of ours and raw sockets, so that no sender's habit hides a fault."""
import http.client
import json
import socket
import ssl
import time
import urllib.parse
from dataclasses import dataclass


@dataclass
class Answer:
    status: int
    headers: dict
    raw: bytes
    seconds: float

    @property
    def json(self):
        return json.loads(self.raw)

    @property
    def retry_after(self):
        value = self.headers.get("retry-after")
        return int(value) if value and value.isdigit() else None


class Client:
    """One keep-alive connection; connects again by itself when the server has closed it."""

    def __init__(self, url, ca=None, timeout=8):
        parts = urllib.parse.urlsplit(url)
        if parts.scheme == "https":
            self._connection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=timeout, context=ssl.create_default_context(cafile=ca))
        else:
            self._connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout)
        self._connection.auto_open = 1

    def request(self, method, path, body=b"", headers=None):
        started = time.monotonic()
        if self._connection.sock is None:
            self._connection.connect()
            # http.client sends head and body apart: without this Nagle adds 40 ms to what is measured.
            self._connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            self._connection.request(method, path, body, headers or {})
            answer = self._connection.getresponse()
            raw = answer.read()
        except BaseException:
            self._connection.close()
            raise
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, found, raw, time.monotonic() - started)

    def post(self, event):
        return self.request("POST", event.path, event.body, event.headers)

    def close(self):
        self._connection.close()


def raw_socket(url, ca=None, timeout=8):
    parts = urllib.parse.urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port), timeout)
    if parts.scheme == "https":
        connection = ssl.create_default_context(cafile=ca).wrap_socket(connection, server_hostname=parts.hostname)
    return connection


def exchange(url, data, ca=None, timeout=8, end=False):
    """Sends bytes as they are, returns all that comes until the server closes or is silent for `timeout`."""
    connection = raw_socket(url, ca, timeout)
    received = b""
    try:
        connection.sendall(data)
        if end:
            connection.shutdown(socket.SHUT_WR)
        while True:
            piece = connection.recv(65536)
            if not piece:
                break
            received += piece
    except (TimeoutError, ConnectionError, ssl.SSLError):
        pass
    finally:
        connection.close()
    return received


def statuses(received):
    """Of all answers in a byte stream, in order."""
    found, rest = [], received
    while rest.startswith(b"HTTP/1."):
        head, _, rest = rest.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        found.append(int(lines[0].split()[1]))
        if found[-1] == 100:  # another answer follows
            continue
        length = [line.split(b":", 1)[1] for line in lines[1:] if line.lower().startswith(b"content-length:")]
        rest = rest[int(length[0]):] if length else b""
    return found


def head_of(event, method="POST", **more):
    """Request line and headers of an event, for those who send by hand."""
    lines = [f"{method} {event.path} HTTP/1.1", "host: localhost"]
    lines += [f"{name}: {value}" for name, value in {**event.headers, **more}.items()]
    return "\r\n".join(lines).encode() + b"\r\n"
