"""nginx in front of the gateways: TLS on a free port, the gateways' plain listeners behind it."""
import os
import resource
import signal
import socket
import subprocess

from . import gateway, process
from .progress import Failure, say, wait_for
from .template import fill, write

BODY = "1m"


def _configure(state):
    base = state.make_directory("nginx")
    upstreams = "\n".join(f"        server 127.0.0.1:{gateway.port(state, number, 'plain')} max_fails=1 fail_timeout=1s;"
                          for number in range(1, state.instances + 1))
    nofile = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    with open(os.path.join(state.root, "deploy", "nginx-dev.conf"), encoding="utf-8") as file:
        text = fill(file.read(), {
            # Workers need no file of ours, so root's give all rights away.
            "USER": "user nobody nogroup;" if os.geteuid() == 0 else "",
            "BASE": base, "LOG": state.log("nginx"), "ACCESS_LOG": state.log("nginx-access"),
            "NOFILE": nofile, "CONNECTIONS": min(8192, nofile // 2), "BODY": BODY, "UPSTREAMS": upstreams,
            "PORT": state.port("nginx"),
            "CERTIFICATE": state.path("tls", "server.pem"), "KEY": state.path("tls", "server.key"),
        })
    path = os.path.join(base, "nginx.conf")
    return path, write(path, text)


def _command(state, path, *more):
    return ["/usr/sbin/nginx", "-p", state.path("nginx"), "-c", path, "-e", state.log("nginx"), *more]


def check(state):
    path, _ = _configure(state)
    done = subprocess.run(_command(state, path, "-t", "-q"), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failure(f"nginx refuses its configuration:\n{done.stderr.strip()}")


def accepts(state):
    try:
        socket.create_connection(("127.0.0.1", state.port("nginx")), 0.2).close()
        return True
    except OSError:
        return False


def _workers(pid):
    return {child for child in process.children(pid) if "shutting down" not in process.title(child)}


def start_or_reload(state):
    """Brings it up, or to the present number of gateways; returns when the workers are the new ones."""
    if not state.alive("nginx"):
        state.end_orphans("nginx")
        state.keep_or_change_port("nginx")
        check(state)
        path, _ = _configure(state)
        record = process.start(_command(state, path), state.log("nginx"), state.directory)
        state.set_process("nginx", record)
        wait_for("nginx", lambda: accepts(state), 10, lambda: process.alive(record))
        say(f"nginx serves https://127.0.0.1:{state.port('nginx')}")
        return
    _, changed = _configure(state)
    if not changed:
        return
    check(state)
    pid = state.pid("nginx")
    old = _workers(pid)
    os.kill(pid, signal.SIGHUP)
    wait_for("nginx's new workers", lambda: _workers(pid) and not _workers(pid) & old, 10)
    say(f"nginx passes to {state.instances} gateway{'s'[:state.instances > 1]}")


def stop(state):
    process.stop(state.record("nginx"), signal.SIGTERM, 10)
    state.end_orphans("nginx")
    state.set_process("nginx", None)
