"""The gateways: one configuration each, made from one template; they differ in their ports only."""
import http.client
import os
import signal
import subprocess

from . import credentials, kafka, postgres, process
from .build import binary
from .progress import Failure, say, wait_for
from .template import fill, write

LISTENERS = ("https", "plain", "admin")


def name(number):
    return f"hookgate-{number}"


def port(state, number, listener):
    return state.port(f"{name(number)}-{listener}")


def config_path(state, number=1):
    return state.path("conf", f"{name(number)}.yaml")


def numbers(state):
    """Of the gateways that were ever started and not stopped since, dead ones included."""
    return sorted(int(known.split("-")[1]) for known in state.names() if known.startswith("hookgate-"))


def configure(state, number):
    """HOOKGATE_DEV_CONFIG names another template, for a run of tests or a benchmark."""
    state.make_directory("conf")
    ports = {f"{listener.upper()}_PORT": port(state, number, listener) for listener in LISTENERS}
    template = os.environ.get("HOOKGATE_DEV_CONFIG") or os.path.join(state.root, "deploy", "hookgate-dev.yaml")
    with open(template, encoding="utf-8") as file:
        text = fill(file.read(), {
            # Postgres, Kafka, nginx and the sender want the other half of the machine.
            "THREADS": max(1, (os.cpu_count() or 2) // 2),
            **ports,
            "CERTIFICATE": state.path("tls", "server.pem"), "KEY": state.path("tls", "server.key"),
            "PUBLIC_URL": f"https://127.0.0.1:{state.port('nginx')}",
            "CONNINFO": postgres.conninfo(state), "BROKERS": kafka.bootstrap(state),
            "PLATFORMS": os.path.join(state.root, "platforms"),
            "ZOOM_SECRET": credentials.path(state, "zoom"), "FIREFLIES_SECRET": credentials.path(state, "fireflies"),
            "KEY_FILE": credentials.path(state, "integrations.key"),
        })
    write(config_path(state, number), text)
    return config_path(state, number)


def run(state, *arguments, stdin=""):
    """A command of the binary that ends by itself."""
    done = subprocess.run([binary(state), *arguments], input=stdin, capture_output=True, text=True,
                          cwd=state.root, check=False)
    if done.returncode != 0:
        raise Failure(f"hookgate {arguments[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr).strip()}")
    return done.stdout


def migrate(state):
    run(state, "migrate", "--config", configure(state, 1), "--sql", os.path.join(state.root, "sql"))
    say("database migrated")


def ready(state, number):
    connection = http.client.HTTPConnection("127.0.0.1", port(state, number, "admin"), timeout=2)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except OSError:
        return False
    except http.client.HTTPException:
        return False
    finally:
        connection.close()


def launch(state, number):
    """Starts it without waiting; nothing when it runs. Returns whether it was started."""
    if state.alive(name(number)):
        return False
    state.end_orphans(name(number))
    for listener in LISTENERS:
        state.keep_or_change_port(f"{name(number)}-{listener}")
    command = [binary(state), "serve", "--config", configure(state, number)]
    state.set_process(name(number), process.start(command, state.log(name(number)), state.directory))
    return True


def wait(state, number, seconds=30):
    try:
        wait_for(name(number), lambda: ready(state, number), seconds, lambda: state.alive(name(number)), 0.02)
    except Failure as failure:
        raise Failure(f"{failure}\n{process.log_tail(state.log(name(number)))}") from None
    say(f"{name(number)} is ready: https {port(state, number, 'https')}, plain {port(state, number, 'plain')}, "
        f"admin {port(state, number, 'admin')}")


def stop(state, number):
    if not process.stop(state.record(name(number)), signal.SIGTERM, 20):
        say(f"{name(number)} did not end by itself within 20 s and was killed")
    state.end_orphans(name(number))
    state.set_process(name(number), None)
