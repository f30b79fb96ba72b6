"""Faults under load, one at a time: each server and each link, stopped, killed, frozen, cut, slow, silent.

The short ones run in CI (`faults`); the rest with `tests/run faults --all` (`all_faults`)."""
import contextlib
import dataclasses
import os
import random
import signal
import subprocess
import time

import psycopg2
import pytest

from harness import Servers, certificate, gateway as gateways, own_servers, postgres, process
from link import Link
from scenario import Expected, run, seed as scenario_seed

SHORT, LONG = pytest.mark.faults, pytest.mark.all_faults


# ---- what can be broken ----

def postgres_gone(servers, _random, how=signal.SIGKILL):
    return servers.without_postgres(how)


def kafka_gone(servers, _random, how=signal.SIGKILL):
    return servers.without_kafka(how)


@contextlib.contextmanager
def both_gone(servers, _random):
    with servers.without_kafka(signal.SIGKILL), servers.without_postgres(signal.SIGKILL):
        yield


def frozen(name):
    return lambda servers, random: servers.frozen(_pick(servers, name, random))


def _pick(servers, name, random):
    return f"hookgate-{random.randint(1, servers.state.instances)}" if name == "hookgate" else name


@contextlib.contextmanager
def gateway_killed(servers, random):
    for _ in range(3):
        name = _pick(servers, "hookgate", random)
        assert process.stop(servers.state.record(name), signal.SIGKILL, 5)
        time.sleep(0.5)
        servers.start_gateways()
    yield


@contextlib.contextmanager
def sessions_terminated(servers, random):
    """pg_terminate_backend on every session of a gateway, in whatever it is doing, again and again."""
    for _ in range(20):
        servers.query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() "
                      "AND pid <> pg_backend_pid()")
        time.sleep(0.1 + 0.2 * random.random())
    yield


@contextlib.contextmanager
def read_only(servers, _random):
    """As a failover that left us at a standby."""
    def alter(command):
        options = "-c default_transaction_read_only=off"
        with contextlib.closing(psycopg2.connect(postgres.conninfo(servers.state), options=options)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(f"ALTER SYSTEM {command}")
                cursor.execute("SELECT pg_reload_conf()")

    alter("SET default_transaction_read_only = on")
    try:
        yield
    finally:
        alter("RESET default_transaction_read_only")


def table_locked(table, mode="SHARE"):
    """As LOCK TABLE, CREATE INDEX or VACUUM FULL."""
    @contextlib.contextmanager
    def fault(servers, _random):
        with contextlib.closing(psycopg2.connect(postgres.conninfo(servers.state))) as connection:
            with connection.cursor() as cursor:
                cursor.execute(f"LOCK TABLE {table} IN {mode} MODE")
            yield
    return fault


@contextlib.contextmanager
def rolling_restart(servers, _random):
    for number in range(1, servers.state.instances + 1):
        gateways.stop(servers.state, number)
        servers.start_gateways()
        time.sleep(0.5)
    yield


@contextlib.contextmanager
def reloads(servers, random):
    """New certificates, configurations that are taken, and one that is refused."""
    state, numbers = servers.state, range(1, servers.state.instances + 1)
    files = [state.path("tls", f"server.{kind}") for kind in ("pem", "key")]
    marks = {number: _reloaded(servers, number) for number in numbers}
    broken = random.randrange(4)
    for round_ in range(4):
        for made, path in zip(certificate(servers, state.path("tls"), "renewed"), files):
            os.replace(made, path)
        for number in numbers:
            with open(gateways.configure(state, number), "a", encoding="utf-8") as file:
                file.write("nonsense: true\n" if round_ == broken else f"# {round_}\n")
            os.kill(servers.pid(f"hookgate-{number}"), signal.SIGHUP)
        time.sleep(1)
    for number in numbers:
        gateways.configure(state, number)
        assert sorted(_reloaded(servers, number)[len(marks[number]):]) == ["refused", "taken", "taken", "taken"]
    yield


def _reloaded(servers, number):
    """What became of each attempt; one that is taken is told twice, for the platforms and for the certificate."""
    return [line["event"].removeprefix("reload_") for line in servers.views(number).lines()
            if line["event"] == "reload_refused" or (line["event"] == "reload_taken" and "certificate" in line["msg"])]


PARKED, HELD = "hookgate_parked_total", "hookgate_held_total"
PLAIN = {
    "gateway killed": (gateway_killed, Expected(refusals=None, doubles="crash"), LONG),
    "gateway frozen": (frozen("hookgate"), Expected(refusals=None, doubles="counted", silent=True), LONG),
    "rolling restart": (rolling_restart, Expected(), LONG),
    "reloads": (reloads, Expected(), LONG),
    "postgres killed": (postgres_gone, Expected(refusals=60, doubles="counted", proof=HELD), LONG),
    "postgres stopped": (lambda s, r: postgres_gone(s, r, signal.SIGINT),
                         Expected(refusals=60, doubles="counted", proof=HELD), LONG),
    "postgres frozen": (frozen("postgres"), Expected(refusals=60, doubles="counted", proof=HELD), LONG),
    "postgres read-only": (read_only, Expected(refusals=60, doubles="counted", proof=HELD), LONG),
    "claims locked": (table_locked("mcp.webhook_claims"), Expected(refusals=60, proof=HELD), LONG),
    "claims locked exclusively": (table_locked("mcp.webhook_claims", "ACCESS EXCLUSIVE"),
                                  Expected(refusals=60, proof=HELD), LONG),
    "receipts locked": (table_locked("mcp.webhook_events"), Expected(refusals=60, doubles="counted", proof=HELD), LONG),
    "sessions terminated": (sessions_terminated, Expected(refusals=60, doubles="counted"), LONG),
    "kafka killed": (kafka_gone, Expected(proof=PARKED), LONG),
    "kafka stopped": (lambda s, r: kafka_gone(s, r, signal.SIGTERM), Expected(proof=PARKED), LONG),
    "kafka frozen": (frozen("kafka"), Expected(proof=PARKED), SHORT),
    "both killed": (both_gone, Expected(refusals=None, doubles="counted"), LONG),
}


def cases(table):
    return [pytest.param(name, id=name.replace(" ", "-"), marks=table[name][-1]) for name in table]


@pytest.mark.parametrize("name", cases(PLAIN))
def test_server(servers, name):
    fault, expected, _ = PLAIN[name]
    run(servers, fault, expected)


@pytest.mark.all_faults
def test_a_minute_without_each(servers):
    """Kafka away for a minute, then Postgres, at 500/s: nobody notices but the log."""
    for gone, refusals in ((kafka_gone, 0), (postgres_gone, 60)):
        meetings, _ = run(servers, gone, Expected(refusals), rate=500, during=60, workers=64)
        assert len(meetings) > 0.95 * 500 * 68.5, "the sender was too slow for a verdict"


# ---- links ----

class Linked(Servers):
    """Servers of their own, with a link before Postgres and one before Kafka; Postgres on a small disk."""

    def __init__(self, directory):
        super().__init__(directory)
        self.disk = self.state.make_directory("postgres")
        if os.geteuid() == 0:
            subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700m,mode=755", "tmpfs", self.disk], check=True)
        self.links = {"postgres": Link(self.state.port("postgres-link"), self.state.port("postgres")),
                      "kafka": Link(self.state.port("kafka-link"), self.state.port("kafka"))}
        conninfo = (f"host=127.0.0.1 port={self.state.port('postgres-link')} user={postgres.USER} "
                    f"dbname={postgres.DATABASE}")
        self.set_template(lambda text: text.replace("@CONNINFO@", conninfo)
                          .replace("@BROKERS@", f"127.0.0.1:{self.state.port('kafka-link')}"))

    def stop(self):
        super().stop()
        for link in self.links.values():
            link.close()
        if os.geteuid() == 0:
            subprocess.run(["umount", self.disk], check=True)


@pytest.fixture(scope="module")
def linked():
    with own_servers(Linked, "link") as made:
        yield made


def link(name, *words):
    @contextlib.contextmanager
    def fault(servers, _random):
        servers.links[name].be(*words)
        yield
        servers.links[name].be("pass")
    return fault


@contextlib.contextmanager
def disk_full(servers, _random):
    """Nothing can be written any more, not even WAL; then there is room again."""
    filler = os.path.join(servers.disk, "filler")
    with open(filler, "wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(1 << 20))
    yield
    os.unlink(filler)
    servers.start_postgres()  # a server that could not write its log ends by itself


LINKS = {
    "postgres cut": (link("postgres", "cut"), Expected(refusals=60, doubles="counted", proof=HELD), LONG),
    "postgres silent": (link("postgres", "hole"), Expected(refusals=60, doubles="counted", proof=HELD), LONG),
    "postgres far away": (link("postgres", "latency", 60), Expected(), LONG),
    "postgres behind a narrow link": (link("postgres", "rate", 1000),
                                      Expected(refusals=None, doubles="counted", proof=HELD), LONG),
    "kafka cut": (link("kafka", "cut"), Expected(proof=PARKED), LONG),
    "kafka silent": (link("kafka", "hole"), Expected(proof=PARKED), LONG),
    "kafka far away": (link("kafka", "latency", 150), Expected(), LONG),
    "kafka behind a narrow link": (link("kafka", "rate", 2000), Expected(proof=PARKED), LONG),
    "disk full": (disk_full, Expected(refusals=None, doubles="counted", proof=HELD), LONG),
}


@pytest.mark.parametrize("name", cases(LINKS))
def test_link(linked, name):
    fault, expected, _ = LINKS[name]
    run(linked, fault, expected)


@pytest.mark.soak
def test_soak(servers):
    """Faults of the servers at random, until the time is up."""
    number = scenario_seed()
    chosen = random.Random(number)
    end = time.monotonic() + 60 * int(os.environ["HOOKGATE_SOAK_MINUTES"])
    while time.monotonic() < end:
        name = chosen.choice(sorted(PLAIN))
        fault, expected, _ = PLAIN[name]
        expected = dataclasses.replace(expected, proof=None)  # half a second may pass unfelt
        print(f"{name}:", end=" ", flush=True)
        run(servers, fault, expected, rate=chosen.choice((100, 200, 300)), during=chosen.uniform(0.5, 8),
            number=chosen.randrange(1 << 32))
