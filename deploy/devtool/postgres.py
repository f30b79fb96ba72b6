"""A private Postgres: data and socket under the state directory, a free loopback port beside it.
Postgres refuses to run as root, so root starts it as the user `postgres`."""
import glob
import os
import pwd
import shutil
import signal
import subprocess
import time

from . import process
from .progress import Failure, say, wait_for
from .template import write

USER = DATABASE = "hookgate"
_SOCKET_MAX = 107 - len("/.s.PGSQL.65535")

# Durable as in production: fsync and synchronous_commit stay on.
_SETTINGS = """\
# Written by deploy/dev.
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 200
shared_buffers = 256MB
wal_buffers = 16MB
max_wal_size = 4GB
checkpoint_timeout = 15min
wal_compression = lz4
random_page_cost = 1.1
log_line_prefix = '%m [%p] %a '
log_min_duration_statement = 1s
timezone = 'UTC'
"""
_HBA = "local all all trust\nhost all all 127.0.0.1/32 trust\n"


def _bin(name):
    found = sorted(glob.glob(f"/usr/lib/postgresql/*/bin/{name}"), key=lambda p: int(p.split("/")[4]))
    path = found[-1] if found else shutil.which(name)
    if not path:
        raise Failure(f"{name} is not installed: run deploy/install dev")
    return path


def _account():
    """The account that owns the servers' data; None = ours."""
    return pwd.getpwnam("postgres") if os.geteuid() == 0 else None


def _command(state, *command):
    """As the account of Postgres. Where it may not pass through our directories (a checkout below
    /root), it gets the one capability that lets it."""
    account = _account()
    if account is None:
        return list(command)
    drop = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    if subprocess.run([*drop, "test", "-x", state.path("postgres")], stderr=subprocess.DEVNULL,
                      check=False).returncode != 0:
        drop += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    return [*drop, *command]


def host(state):
    """Clients use the socket; its path must fit into the kernel's 108 bytes."""
    path = state.path("postgres", "socket")
    return path if len(path) <= _SOCKET_MAX else "127.0.0.1"


def environment(state):
    return {"PGHOST": host(state), "PGPORT": str(state.port("postgres")), "PGUSER": USER, "PGDATABASE": DATABASE}


def conninfo(state):
    return f"host={host(state)} port={state.port('postgres')} user={USER} dbname={DATABASE}"


def _prepare(state):
    base = state.make_directory("postgres")
    socket = state.make_directory("postgres", "socket")
    account = _account()
    if account:
        os.chown(base, account.pw_uid, account.pw_gid)
        os.chown(socket, account.pw_uid, account.pw_gid)
    data = os.path.join(base, "data")
    if not os.path.exists(os.path.join(data, "PG_VERSION")):
        shutil.rmtree(data, ignore_errors=True)
        unfinished = data + ".new"
        shutil.rmtree(unfinished, ignore_errors=True)
        done = subprocess.run(
            _command(state, _bin("initdb"), "-D", unfinished, "-U", USER, "-E", "UTF8", "--locale=C.UTF-8",
                     "--auth=trust", "--no-instructions"), capture_output=True, text=True, cwd="/", check=False)
        if done.returncode != 0:
            raise Failure(f"initdb: {done.stderr.strip()}")
        os.rename(unfinished, data)
    sockets = socket if host(state) == socket else ""
    write(os.path.join(base, "postgresql.conf"),
          _SETTINGS + f"listen_addresses = '127.0.0.1'\nport = {state.keep_or_change_port('postgres')}\n"
          f"unix_socket_directories = '{sockets}'\n")
    write(os.path.join(base, "pg_hba.conf"), _HBA)
    return base, data


def accepts(state):
    return subprocess.run([_bin("pg_isready"), "-q", "-h", host(state), "-p", str(state.port("postgres")),
                           "-d", "postgres", "-U", USER], check=False).returncode == 0


def orphans(state):
    """Each process of Postgres is leader of a session of its own; what they share is the directory."""
    if not state.record("postgres") or state.alive("postgres"):
        return []
    found, program, data = [], os.path.realpath(_bin("postgres")), os.path.realpath(state.path("postgres", "data"))
    for pid, _ in process.everything():
        try:
            if process.runs(pid, program) and os.readlink(f"/proc/{pid}/cwd") == data:
                found.append(pid)
        except OSError:
            pass
    return found


def _end_orphans(state):
    # They notice by themselves that their server is gone, and let go of its shared memory.
    state.end_orphans("postgres", lambda: orphans(state), patience=10)


def start(state):
    if state.alive("postgres"):
        return
    _end_orphans(state)
    base, data = _prepare(state)
    command = _command(state, _bin("postgres"), "-D", data, "-c", f"config_file={base}/postgresql.conf",
                       "-c", f"hba_file={base}/pg_hba.conf")
    end = time.monotonic() + 20
    while True:
        record = process.start(command, state.log("postgres"), "/", program=_bin("postgres"))
        state.set_process("postgres", record)
        try:
            wait_for("Postgres", lambda: accepts(state), 60, lambda: process.alive(record))
            break
        except Failure:
            # Where we may not look whose they are, old backends may still hold the shared memory.
            if time.monotonic() > end:
                raise Failure(f"Postgres does not start:\n{process.log_tail(state.log('postgres'))}") from None
            time.sleep(0.3)
    if query(state, f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'", database="postgres") == "":
        query(state, f"CREATE DATABASE {DATABASE}", database="postgres")
    say(f"Postgres accepts connections on {host(state)}, port {state.port('postgres')}")


def stop(state):
    # "Fast": sessions are ended, everything is written.
    process.stop(state.record("postgres"), signal.SIGINT, 30)
    _end_orphans(state)
    state.set_process("postgres", None)


def query(state, sql, database=DATABASE):
    """Runs a script; the answer as unaligned text, fields separated by tabs."""
    done = subprocess.run(["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", database],
                          input=sql, env={**os.environ, **environment(state)}, capture_output=True, text=True,
                          check=False)
    if done.returncode != 0:
        raise Failure(f"psql: {done.stderr.strip()}")
    return done.stdout.rstrip("\n")
