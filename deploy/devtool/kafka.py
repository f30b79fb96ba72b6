"""A private Kafka of one node (KRaft), run from the jars that Maven resolves for kafka-dev.xml."""
import json
import os
import shutil
import signal
import socket
import subprocess

from . import process
from .progress import Failure, say, wait_for
from .state import ROOT
from .template import fill, write

# The jars are the checkout's, whatever state directory the servers use.
HOME = os.path.join(ROOT, ".dev", "kafka")
LIBS = os.path.join(HOME, "libs")


def bootstrap(state):
    return f"127.0.0.1:{state.port('kafka')}"


def fetch():
    """The jars, once; a copy that was cut off doesn't count."""
    if os.path.isdir(LIBS):
        return
    os.makedirs(HOME, exist_ok=True)
    unfinished = LIBS + f".{os.getpid()}"
    done = subprocess.run(
        ["mvn", "-q", "-B", "-f", os.path.join(ROOT, "deploy", "kafka-dev.xml"), "dependency:copy-dependencies",
         "-DincludeScope=runtime", f"-DoutputDirectory={unfinished}"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise Failure(f"Maven could not fetch Kafka:\n{(done.stdout + done.stderr)[-2000:]}")
    try:
        os.rename(unfinished, LIBS)
    except OSError:  # another run was first
        shutil.rmtree(unfinished, ignore_errors=True)
    say(f"Kafka fetched: {len(os.listdir(LIBS))} jars")


def _java(*arguments, options=()):
    return ["java", *options, "-cp", os.path.join(LIBS, "*"), *arguments]


def _run(name, *arguments):
    done = subprocess.run(_java(name, *arguments), capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise Failure(f"{name} {' '.join(arguments)} ended with {done.returncode}:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout


def tool(state, name, *arguments):
    """One of Kafka's command-line classes, on our broker."""
    _run(name, "--bootstrap-server", bootstrap(state), *arguments)


def new_identity():
    """Of a cluster that is to be."""
    return _run("kafka.tools.StorageTool", "random-uuid").split()[-1]


def is_formatted(data):
    return os.path.exists(os.path.join(data, "meta.properties"))


def format_storage(identity, properties):
    _run("kafka.tools.StorageTool", "format", "-t", identity, "-c", properties)


def launch(properties, log, cwd, heap="512m"):
    """A broker; returns its process without waiting."""
    options = [f"-Xms{heap}", f"-Xmx{heap}", "-XX:+ExitOnOutOfMemoryError",
               f"-Dlog4j2.configurationFile={os.path.join(ROOT, 'deploy', 'kafka-dev-log4j2.properties')}"]
    return process.start(_java("kafka.Kafka", properties, options=options), log, cwd)


def _prepare(state, settings):
    base = state.make_directory("kafka")
    data = os.path.join(base, "data")
    with open(os.path.join(ROOT, "deploy", "kafka-dev.properties"), encoding="utf-8") as file:
        port = state.keep_or_change_port("kafka")
        # Clients are told the way over a link, where tests have put one before the broker.
        advertised = state.port("kafka-link") if state.has_port("kafka-link") else port
        text = fill(file.read(), {"BROKER_PORT": port, "ADVERTISED_PORT": advertised,
                                  "CONTROLLER_PORT": state.keep_or_change_port("kafka-controller"), "DATA": data})
    text += "".join(f"{key}={value}\n" for key, value in settings.items())
    properties = os.path.join(base, "server.properties")
    write(properties, text)
    if not is_formatted(data):
        format_storage(new_identity(), properties)
    return base, properties


def accepts(state):
    """Serves metadata, not just an open port."""
    try:
        socket.create_connection(("127.0.0.1", state.port("kafka")), 0.2).close()
    except OSError:
        return False
    return subprocess.run(["kcat", "-b", bootstrap(state), "-L", "-m", "2"], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, check=False).returncode == 0


def start(state, settings=None):
    """`settings` are the broker's own, and win over those of kafka-dev.properties."""
    if state.alive("kafka"):
        return
    fetch()
    state.end_orphans("kafka")
    base, properties = _prepare(state, settings or {})
    record = launch(properties, state.log("kafka"), base)
    state.set_process("kafka", record)
    try:
        wait_for("Kafka", lambda: accepts(state), 60, lambda: process.alive(record))
    except Failure as failure:
        raise Failure(f"{failure}\n{process.log_tail(state.log('kafka'))}") from None
    say(f"Kafka serves {bootstrap(state)}")


def stop(state):
    process.stop(state.record("kafka"), signal.SIGTERM, 30)
    state.end_orphans("kafka")
    state.set_process("kafka", None)


def topics(state):
    done = subprocess.run(["kcat", "-b", bootstrap(state), "-L", "-J", "-m", "5"], capture_output=True, check=False)
    if done.returncode != 0:
        raise Failure(f"kcat: {done.stderr.decode(errors='replace').strip()}")
    return sorted(topic["topic"] for topic in json.loads(done.stdout)["topics"])
