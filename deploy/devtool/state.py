"""The state directory: which ports and processes are ours, and the file that tells others."""
import fcntl
import json
import os
import random
import shlex
import socket
import threading
import time

from . import process
from .progress import say
from .template import write

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def _ephemeral_low():
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        return int(file.read().split()[0])


def port_is_free(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def free_port(taken=()):
    """Below the range of outgoing connections: otherwise a client could take a server's port while
    the server is down, and the server could not come back to it."""
    low, high = 10000, _ephemeral_low() - 1
    if high - low < 5000:  # a machine with an unusual range: let the system choose
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]
    while True:
        port = random.randint(low, high)
        if port not in taken and port_is_free(port):
            return port


class State:
    def __init__(self, directory=None):
        self.root = ROOT
        self.directory = os.path.abspath(
            directory or os.environ.get("HOOKGATE_DEV_DIR") or os.path.join(ROOT, ".dev"))
        self._mutex = threading.Lock()
        self._data = {"ports": {}, "processes": {}, "instances": 1}
        self._read()

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def make_directory(self, *parts, mode=0o755):
        path = self.path(*parts)
        os.makedirs(path, exist_ok=True)
        os.chmod(path, mode)
        return path

    def lock(self):
        """One deploy/dev at a time changes things; ends with the process."""
        self.make_directory()
        self.make_directory("logs")
        self._lock = open(self.path("lock"), "w", encoding="ascii")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._read()

    def _read(self):
        try:
            with open(self.path("state.json"), encoding="utf-8") as file:
                self._data.update(json.load(file))
        except FileNotFoundError:
            pass

    def _save(self):
        write(self.path("state.json"), json.dumps(self._data, indent=1) + "\n")

    # Ports: chosen once, kept, so that a restarted server is where its clients look for it.

    def port(self, name):
        with self._mutex:
            ports = self._data["ports"]
            if name not in ports:
                ports[name] = free_port(ports.values())
                self._save()
            return ports[name]

    def has_port(self, name):
        return name in self._data["ports"]

    def keep_or_change_port(self, name):
        """Before a server starts: somebody else may sit on its port by now. What was killed a moment ago
        has a moment to let it go."""
        port = self.port(name)
        end = time.monotonic() + 2
        while not port_is_free(port) and time.monotonic() < end:
            time.sleep(0.05)
        if port_is_free(port):
            return port
        with self._mutex:
            del self._data["ports"][name]
        return self.port(name)

    # Processes.

    def set_process(self, name, record):
        with self._mutex:
            if record is None:
                self._data["processes"].pop(name, None)
            else:
                self._data["processes"][name] = record
            self._save()

    def record(self, name):
        return self._data["processes"].get(name)

    def alive(self, name):
        return process.alive(self.record(name))

    def pid(self, name):
        return self.record(name)["pid"] if self.alive(name) else None

    def orphans(self, name):
        return process.orphans(self.record(name))

    def end_orphans(self, name, find=None, patience=0.0):
        """Of a server that was killed: what it left would keep its port or its files."""
        count = process.end(find or (lambda: self.orphans(name)), patience)
        if count:
            say(f"{name} had been killed: {count} process{'es'[:2 * (count > 1)]} that it left ended")

    def names(self):
        return sorted(self._data["processes"])

    @property
    def instances(self):
        return self._data["instances"]

    @instances.setter
    def instances(self, count):
        with self._mutex:
            self._data["instances"] = count
            self._save()

    def log(self, name):
        return self.path("logs", f"{name}.log")

    # What others read.

    def write_env(self, values):
        write(self.path("env"), "".join(f"{key}={shlex.quote(str(value))}\n" for key, value in values.items()))
