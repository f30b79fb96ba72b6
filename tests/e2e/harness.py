"""Real servers for the tests, by the modules of deploy/dev in a directory of their own, and the views
that operators have: answers, records, rows, metrics, log lines."""
import collections
import contextlib
import copy
import datetime
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass

import psycopg2
import psycopg2.extras
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "deploy"))

from devtool import build, credentials, demo, gateway, kafka, nginx, postgres, process, tls  # noqa: E402
from devtool.progress import wait_for  # noqa: E402
from devtool.state import State, free_port  # noqa: E402

from client import Client  # noqa: E402


@dataclass
class Record:
    """A record as a consumer sees it."""
    topic: str
    partition: int
    offset: int
    key: bytes
    value: bytes
    headers: list  # of pairs, in order

    def header(self, name):
        values = [value for key, value in self.headers if key == name]
        assert len(values) == 1, f"header {name} occurs {len(values)} times: {self.headers}"
        return values[0]

    @property
    def event_id(self):
        return self.header("ce_id")


class Views:
    """What an operator sees of one gateway."""

    def __init__(self, admin_url, log):
        self.admin_url, self.log = admin_url, log

    def admin(self, path, method="GET"):
        client = Client(self.admin_url)
        try:
            return client.request(method, path)
        finally:
            client.close()

    def metrics_text(self):
        answer = self.admin("/metrics")
        assert answer.status == 200
        return answer.raw.decode()

    def metric(self, name, **labels):
        """Sum of the series of this name that have these labels."""
        return sum(value for found, found_labels, value in parse_metrics(self.metrics_text())
                   if found == name and labels.items() <= found_labels.items())

    def mark(self):
        """A place in the log to read from."""
        return os.path.getsize(self.log)

    def lines(self, mark=0, event=None):
        """JSON lines since the mark."""
        with open(self.log, "rb") as file:
            file.seek(mark)
            text = file.read()
        found = [json.loads(line) for line in text.splitlines() if line.startswith(b"{")]
        return [line for line in found if event is None or line.get("event") == event]

    def wait_line(self, mark, wanted, seconds=3):
        """The first line since the mark for which `wanted` is true; lines are written by a thread."""
        return wait_for("log line", lambda: [line for line in self.lines(mark) if wanted(line)], seconds)[0]


@contextlib.contextmanager
def frozen(*pids):
    """SIGSTOP, and SIGCONT for those that are still there."""
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def parse_metrics(text):
    """(name, labels, value) of each sample line of the text format."""
    found = []
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        match = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)', line)
        assert match, f"not a sample line: {line}"
        labels = dict(re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"', match.group(2) or ""))
        found.append((match.group(1), labels, float(match.group(3))))
    return found


class Gateway(Views):
    """A gateway of one test, with its own configuration; ended by the fixture that made it."""

    def __init__(self, servers, name, overrides=None, drop=()):
        self.servers, self.name = servers, name
        self.directory = servers.state.make_directory("extra", name)
        taken = set(servers.ports_taken)
        self.ports = {}
        for listener in gateway.LISTENERS:
            self.ports[listener] = free_port(taken)
            taken.add(self.ports[listener])
        servers.ports_taken |= taken
        self.config = servers.config(self.ports, overrides or {}, drop)
        self.config_path = os.path.join(self.directory, "hookgate.yaml")
        self.save()
        super().__init__(f"http://127.0.0.1:{self.ports['admin']}", os.path.join(self.directory, "log"))
        self.url = f"https://127.0.0.1:{self.ports['https']}"
        self.plain_url = f"http://127.0.0.1:{self.ports['plain']}"
        self.process = None

    def save(self):
        """What a test has changed in `config`."""
        with open(self.config_path, "w", encoding="utf-8") as file:
            yaml.safe_dump(self.config, file, sort_keys=False)

    def start(self, wait=True, environment=None, binary=None, user=None):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen([binary or self.servers.binary, "serve", "--config", self.config_path],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                            env={**os.environ, **(environment or {})}, user=user, group=user,
                                            extra_groups=None if user is None else [])
        if wait:
            self.wait()
        return self

    def ready(self):
        try:
            return self.admin("/readyz").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def wait(self, seconds=30):
        wait_for(f"{self.name}: {process.log_tail(self.log)}", self.ready, seconds,
                 lambda: self.process.poll() is None, 0.02)

    def send_signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.kill()
        self.process.wait()

    def terminate(self, seconds=20):
        """SIGTERM; returns the exit status."""
        self.process.terminate()
        return self.process.wait(seconds)

    def end(self):
        if self.process and self.process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"{self.name} did not end within 20 s of SIGTERM") from None

    def client(self, url=None):
        return self.servers.client(url or self.url)


class Servers:
    """Postgres, Kafka, nginx and N gateways behind it."""

    def __init__(self, directory):
        self.state = State(directory)
        self.binary = build.binary(self.state)
        self.ports_taken = set()
        self.ca = self.state.path("tls", "ca.pem")
        self.zoom_account, self.limited_account = demo.ZOOM_ACCOUNT, demo.ZOOM_LIMITED_ACCOUNT
        self.fireflies_email = demo.FIREFLIES_EMAIL

    def set_template(self, change):
        """The gateways' configurations are made from what `change` makes of that of deploy/dev; for own_servers()."""
        with open(os.path.join(ROOT, "deploy", "hookgate-dev.yaml"), encoding="utf-8") as file:
            text = change(file.read())
        self.template = os.path.join(self.state.directory, "template.yaml")
        with open(self.template, "w", encoding="utf-8") as file:
            file.write(text)

    # Life.

    def start(self, instances=3):
        process.raise_limits()
        self.state.lock()
        self.state.instances = instances
        tls.prepare(self.state)
        credentials.prepare(self.state)
        postgres.start(self.state)
        self.start_kafka()
        gateway.migrate(self.state)
        demo.insert(self.state)
        self.start_gateways()
        nginx.start_or_reload(self.state)

    def start_gateways(self):
        numbers = range(1, self.state.instances + 1)
        for number in numbers:
            gateway.launch(self.state, number)
        for number in numbers:
            gateway.wait(self.state, number)

    def kill_gateways(self):
        """All at once; returns when the last one is gone, so that the next start is not taken for done."""
        records = [self.state.record(gateway.name(number)) for number in range(1, self.state.instances + 1)]
        for record in records:
            os.kill(record["pid"], signal.SIGKILL)
        for record in records:
            process.stop(record, signal.SIGKILL, 10)

    def repair(self):
        """Everything runs again, whatever a test that failed has left."""
        for name in ("postgres", "kafka", *(gateway.name(number) for number in range(1, self.state.instances + 1))):
            if self.state.alive(name):
                for pid in process.family(self.pid(name)):
                    os.kill(pid, signal.SIGCONT)
        self.start_postgres()
        self.start_kafka()
        self.start_gateways()
        nginx.start_or_reload(self.state)

    def stop(self):
        nginx.stop(self.state)
        for number in gateway.numbers(self.state):
            gateway.stop(self.state, number)
        self.end_kafka()
        postgres.stop(self.state)

    def stop_postgres(self, number=signal.SIGINT):
        process.stop(self.state.record("postgres"), number, 30)

    def start_postgres(self):
        postgres.start(self.state)

    @contextlib.contextmanager
    def without_postgres(self, number=signal.SIGINT):
        self.stop_postgres(number)
        try:
            yield
        finally:
            self.start_postgres()

    def stop_kafka(self, number=signal.SIGTERM):
        process.stop(self.state.record("kafka"), number, 30)

    def start_kafka(self):
        kafka.start(self.state)

    @contextlib.contextmanager
    def without_kafka(self, number=signal.SIGTERM):
        self.stop_kafka(number)
        try:
            yield
        finally:
            self.start_kafka()

    def end_kafka(self):
        kafka.stop(self.state)

    def pid(self, name):
        return self.state.pid(name)

    @contextlib.contextmanager
    def frozen(self, *names):
        """With their children: Postgres' leader alone would leave open sessions running."""
        with frozen(*(pid for name in names for pid in process.family(self.pid(name)))):
            yield

    # Addresses and secrets.

    @property
    def url(self):
        return f"https://127.0.0.1:{self.state.port('nginx')}"

    def direct_url(self, number=1):
        return f"https://127.0.0.1:{gateway.port(self.state, number, 'https')}"

    def plain_url(self, number=1):
        return f"http://127.0.0.1:{gateway.port(self.state, number, 'plain')}"

    def views(self, number=1):
        return Views(f"http://127.0.0.1:{gateway.port(self.state, number, 'admin')}",
                     self.state.log(gateway.name(number)))

    def all_views(self):
        return [self.views(number) for number in range(1, self.state.instances + 1)]

    def metric(self, name, **labels):
        """Its sum over the instances, each of which has to answer."""
        return sum(views.metric(name, **labels) for views in self.all_views())

    def secret(self, name):
        return credentials.read(self.state, name)

    def secret_file(self, name):
        return credentials.path(self.state, name)

    def client(self, url=None, timeout=8):
        return Client(url or self.url, self.ca, timeout)

    def config(self, ports, overrides, drop=()):
        """The configuration of deploy/dev, with other ports and with what a test wants to be different."""
        with open(gateway.configure(self.state, 1), encoding="utf-8") as file:
            config = yaml.safe_load(file)
        for listener in gateway.LISTENERS:
            config["listen"][listener] = f"127.0.0.1:{ports[listener]}"
        _merge(config, overrides)
        for path in drop:
            *parents, last = path.split(".")
            where = config
            for parent in parents:
                where = where[parent]
            del where[last]
        return config

    @contextlib.contextmanager
    def gateway(self, name, overrides=None, drop=(), **start):
        made = Gateway(self, name, overrides, drop)
        try:
            yield made.start(**start)
        finally:
            made.end()

    def command(self, *arguments, stdin=None, cwd=ROOT, timeout=60):
        """A command of the binary."""
        return subprocess.run([self.binary, *map(str, arguments)], input=stdin, capture_output=True, cwd=cwd,
                              timeout=timeout, check=False)

    def operate(self, *arguments):
        """A command that wants the gateways' configuration."""
        return self.command(*arguments, "--config", gateway.configure(self.state, 1), timeout=120)

    # Postgres and Kafka.

    def query(self, sql, *arguments):
        with contextlib.closing(psycopg2.connect(postgres.conninfo(self.state))) as connection:
            connection.autocommit = True
            with connection.cursor(cursor_factory=psycopg2.extras.DictCursor) as cursor:
                cursor.execute(sql, arguments or None)
                return cursor.fetchall() if cursor.description else []

    def receipts(self, event_id):
        return self.query("SELECT * FROM mcp.webhook_events WHERE event_id = %s", event_id)

    def claims(self, event_id):
        return self.query("SELECT count(*) FROM mcp.webhook_claims WHERE event_id = %s", event_id)[0][0]

    def claims_without_receipt(self):
        return self.query("SELECT count(*) FROM mcp.webhook_claims c WHERE NOT EXISTS "
                          "(SELECT FROM mcp.webhook_events e WHERE e.event_id = c.event_id) AND NOT EXISTS "
                          "(SELECT FROM mcp.webhook_refused r WHERE r.event_id = c.event_id)")[0][0]

    def records(self, topic="webhooks.zoom"):
        """All records of a topic, from the beginning to its present end."""
        done = subprocess.run(["kcat", "-b", kafka.bootstrap(self.state), "-C", "-q", "-J", "-e", "-t", topic,
                               "-o", "beginning"], capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return [_record(json.loads(line)) for line in done.stdout.splitlines()]

    def record_at(self, topic, partition, offset):
        done = subprocess.run(["kcat", "-b", kafka.bootstrap(self.state), "-C", "-q", "-J", "-e", "-c", "1", "-t",
                               topic, "-p", str(partition), "-o", str(offset)], capture_output=True, timeout=60,
                              check=False)
        assert done.returncode == 0 and done.stdout, done.stderr.decode(errors="replace")
        return _record(json.loads(done.stdout))

    def event_ids(self, topic="webhooks.zoom"):
        """How often each event id is in the topic. Without the bodies, which take long to read behind many scenarios."""
        done = subprocess.run(["kcat", "-b", kafka.bootstrap(self.state), "-C", "-q", "-e", "-t", topic, "-o", "beginning",
                               "-f", "%h\\n"], capture_output=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return collections.Counter(re.findall(r"^ce_specversion=1\.0,ce_id=([0-9a-f-]{36}),",
                                              done.stdout.decode(errors="replace"), re.M))


class Beside:
    """While its block runs, a thread takes its `step` again and again."""

    def __init__(self, pause):
        self._pause, self._quit = pause, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        while not self._quit.wait(self._pause):
            self.step()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._quit.set()
        self._thread.join()


@contextlib.contextmanager
def own_servers(kind, name, instances=3):
    """Servers of a test file's own: of a class whose gateways are made from another template."""
    directory = tempfile.mkdtemp(prefix=f"hookgate-{name}-")
    os.chmod(directory, 0o755)
    before = os.environ.get("HOOKGATE_DEV_CONFIG")
    made = kind(directory)
    os.environ["HOOKGATE_DEV_CONFIG"] = made.template
    try:
        made.start(instances=instances)
        yield made
    finally:
        os.environ.pop("HOOKGATE_DEV_CONFIG")
        if before:
            os.environ["HOOKGATE_DEV_CONFIG"] = before
        made.stop()
        keep = os.environ.get("HOOKGATE_E2E_KEEP")
        if keep:
            shutil.copytree(os.path.join(directory, "logs"), f"{keep}-{name}", dirs_exist_ok=True)
        shutil.rmtree(directory, ignore_errors=True)


def integrations_known(servers, seconds=20):
    """Waits until all instances know all there are, of the platforms that they load: other tests leave some of others."""
    count = servers.query("SELECT count(*) FROM core.integrations WHERE platform IN ('zoom', 'fireflies', 'otter')")[0][0]
    for views in servers.all_views():
        until("the new integrations known", lambda v=views: v.metric("hookgate_directory_integrations") == count, seconds)


def workspaces(servers, count=1, plan="default", **limits):
    """Accounts of Zoom, each of a workspace of its own; returns when all instances know them."""
    prefix = f"lim-{uuid.uuid4().hex[:8]}"
    servers.query("INSERT INTO core.workspaces (workspace_id, plan, limit_per_minute, limit_per_hour) "
                  "SELECT %s || n, %s, %s, %s FROM generate_series(1, %s) n",
                  f"{prefix}-", plan, limits.get("minute"), limits.get("hour"), count)
    servers.query("INSERT INTO core.integrations (workspace_id, platform, account_ids) "
                  "SELECT %s || n, 'zoom', ARRAY[%s || n] FROM generate_series(1, %s) n",
                  f"{prefix}-", f"{prefix}-", count)
    integrations_known(servers)
    return [f"{prefix}-{n}" for n in range(1, count + 1)]


def write_secret(path, *secrets):
    """As an operator's tool does it: whole, and closed to others from the beginning."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write("".join(secret + "\n" for secret in secrets))
    os.rename(path + ".new", path)
    return path


def certificate(servers, directory, name):
    """A certificate of the tests' authority with a serial number of its own: (certificate, key)."""
    made, key = (os.path.join(directory, f"{name}.{kind}") for kind in ("pem", "key"))
    request, extensions = made + ".csr", made + ".ext"
    with open(extensions, "w", encoding="ascii") as file:
        file.write("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    authority = [servers.state.path("tls", file) for file in ("ca.pem", "ca.key")]
    for arguments in (["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
                       "-out", request, "-subj", "/CN=localhost"],
                      ["x509", "-req", "-in", request, "-CA", authority[0], "-CAkey", authority[1], "-out", made,
                       "-set_serial", str(uuid.uuid4().int >> 64), "-days", "30", "-extfile", extensions]):
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
    os.chmod(key, 0o600)
    return made, key


def _record(line):
    headers = line.get("headers") or []
    return Record(line["topic"], line["partition"], line["offset"], (line["key"] or "").encode(),
                  line["payload"].encode(), list(zip(headers[::2], headers[1::2])))


def _merge(into, more):
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = copy.deepcopy(value)


def until(what, ready, seconds=5, interval=0.05):
    return wait_for(what, ready, seconds, interval=interval)


def stamp():
    """Now, as `--since` takes it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else 0.0


def steady(servers, client, event_maker, seconds=5):
    """Waits until an event is accepted again; returns the seconds it took."""
    started = time.monotonic()

    def accepted():
        try:
            return client.post(event_maker()).status == 200
        except (OSError, http.client.HTTPException):
            return False

    until("an accepted event", accepted, seconds)
    return time.monotonic() - started
