"""The commands of deploy/dev."""
import concurrent.futures
import os
import shutil
import subprocess
import sys

from . import build, credentials, demo, gateway, kafka, nginx, postgres, process, tls
from .progress import Failure, say
from .state import State


def environment(state):
    """.dev/env: what the README promises, and the further instances."""
    def url(scheme, port):
        return f"{scheme}://127.0.0.1:{port}"

    values = {"HOOKGATE_URL": url("https", state.port("nginx"))}
    for number in range(1, state.instances + 1):
        suffix = "" if number == 1 else f"_{number}"
        values["HOOKGATE_DIRECT_URL" + suffix] = url("https", gateway.port(state, number, "https"))
        values["HOOKGATE_PLAIN_URL" + suffix] = url("http", gateway.port(state, number, "plain"))
        values["HOOKGATE_ADMIN_URL" + suffix] = url("http", gateway.port(state, number, "admin"))
        values["HOOKGATE_CONF" + suffix] = gateway.config_path(state, number)
    values.update({
        "HOOKGATE_CA": state.path("tls", "ca.pem"),
        "HOOKGATE_BIN": build.binary(state),
        **postgres.environment(state),
        "KAFKA_BOOTSTRAP": kafka.bootstrap(state),
        "KAFKA_HOME": kafka.HOME,
        "ZOOM_SECRET_FILE": credentials.path(state, "zoom"),
        "ZOOM_ACCOUNT_ID": demo.ZOOM_ACCOUNT,
        "ZOOM_LIMITED_ACCOUNT_ID": demo.ZOOM_LIMITED_ACCOUNT,
        "FIREFLIES_SECRET_FILE": credentials.path(state, "fireflies"),
        "FIREFLIES_EMAIL": demo.FIREFLIES_EMAIL,
        **{f"{platform.upper()}_ENDPOINT_URL": url("https", state.port("nginx")) + f"/webhooks/{platform}/"
           + credentials.read(state, f"{platform}-endpoint") for platform in ("fireflies", "otter")},
    })
    for name in state.names():
        if state.alive(name):
            values["PID_" + name.upper().replace("-", "_")] = state.pid(name)
    return values


def _bring_up_gateways(state):
    wanted = range(1, state.instances + 1)
    for number in wanted:
        gateway.configure(state, number)
        gateway.launch(state, number)
    state.write_env(environment(state))
    for number in wanted:
        gateway.wait(state, number)


def up(state, arguments):
    servers_only = arguments == ["--servers-only"]
    if arguments and not servers_only:
        raise Failure("usage: deploy/dev up [--servers-only]")
    state.lock()
    # A repair must not add events to what somebody is counting; a start from nothing proves itself.
    cold = not any(state.alive(name) for name in state.names())
    tls.prepare(state)
    credentials.prepare(state)
    # What takes long runs side by side.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        jobs = [pool.submit(start, state) for start in (postgres.start, kafka.start)]
        if not servers_only:
            jobs.append(pool.submit(build.build, state))
        for job in concurrent.futures.as_completed(jobs):
            job.result()
    for number in range(1, state.instances + 1):
        gateway.configure(state, number)
    state.write_env(environment(state))
    if not servers_only:
        gateway.migrate(state)
        demo.insert(state)
        _bring_up_gateways(state)
    nginx.start_or_reload(state)
    state.write_env(environment(state))
    if cold and not servers_only:
        demo.prove(state)
    say(f"up; `. {state.path('env')}` tells a shell where everything is")


def down(state, arguments):
    if arguments not in ([], ["--wipe"]):
        raise Failure("usage: deploy/dev down [--wipe]")
    if not os.path.isdir(state.directory):
        return
    state.lock()
    nginx.stop(state)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda number: gateway.stop(state, number), gateway.numbers(state)))
        list(pool.map(lambda stop: stop(state), (kafka.stop, postgres.stop)))
    if arguments:
        shutil.rmtree(state.directory)
        say(f"down; {state.directory} is gone")
        return
    if os.path.exists(state.path("env")):
        state.write_env(environment(state))
    say("down; the data stays")


def instances(state, arguments):
    if len(arguments) != 1 or not arguments[0].isdigit() or not 1 <= int(arguments[0]) <= 64:
        raise Failure("usage: deploy/dev instances N (1 to 64)")
    state.lock()
    if not (state.alive("postgres") and state.alive("kafka") and state.alive("nginx")):
        raise Failure("the servers are not running: deploy/dev up")
    state.instances = int(arguments[0])
    _bring_up_gateways(state)
    nginx.start_or_reload(state)
    surplus = [number for number in gateway.numbers(state) if number > state.instances]
    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(lambda number: gateway.stop(state, number), surplus))
    state.write_env(environment(state))
    say(f"{state.instances} gateway{'s'[:state.instances > 1]} behind https://127.0.0.1:{state.port('nginx')}")


def status(state, _):
    rows = [("NAME", "STATE", "PID", "MiB", "WHERE")]
    names = ["postgres", "kafka", *[gateway.name(n) for n in range(1, state.instances + 1)], "nginx"]
    healthy = True
    for name in names + [known for known in state.names() if known not in names]:
        running = state.alive(name)
        healthy = healthy and running
        if name.startswith("hookgate-"):
            number = int(name.split("-")[1])
            where = " ".join(f"{kind}:{gateway.port(state, number, kind)}" for kind in gateway.LISTENERS)
            label = ("ready" if gateway.ready(state, number) else "not ready") if running else "stopped"
        else:
            where, label = f"port {state.port(name)}", "running" if running else "stopped"
        left = [] if running else postgres.orphans(state) if name == "postgres" else state.orphans(name)
        if left:
            label = f"killed, left {len(left)}: " + ",".join(map(str, left))
        pid = str(state.pid(name)) if running else "-"
        rows.append((name, label, pid, str(process.resident_mib(pid)) if running else "-", where))
    demo.table(rows)
    return 0 if healthy else 1


def logs(state, arguments):
    files = [state.log(name) for name in arguments] or sorted(
        os.path.join(state.path("logs"), name) for name in os.listdir(state.path("logs")))
    missing = [path for path in files if not os.path.exists(path)]
    if missing:
        raise Failure(f"there is no {missing[0]}; logs: {', '.join(sorted(os.listdir(state.path('logs'))))}")
    os.execvp("tail", ["tail", "-n", "50", "-F", *files])


def env(state, _):
    with open(state.path("env"), encoding="utf-8") as file:
        sys.stdout.write(file.read())


def psql(state, arguments):
    os.execvpe("psql", ["psql", *arguments], {**os.environ, **postgres.environment(state)})


def consume(state, arguments):
    topics = arguments or [topic for topic in kafka.topics(state) if topic.startswith("webhooks.")]
    for topic in topics:
        done = subprocess.run(["kcat", "-b", kafka.bootstrap(state), "-C", "-q", "-e", "-t", topic, "-o", "beginning",
                               "-f", "%t/%p@%o  key %k\n  %h\n  %s\n"], check=False)
        if done.returncode != 0:
            return 1
    return 0


_COMMANDS = {"up": up, "down": down, "instances": instances, "status": status, "logs": logs, "env": env,
             "psql": psql, "consume": consume}
_NEED_STATE = {"status", "logs", "env", "psql", "consume", "instances"}


def main(arguments):
    command = _COMMANDS.get(arguments[0] if arguments else "")
    if command is None:
        print("deploy/dev: commands are " + " ".join(_COMMANDS), file=sys.stderr)
        return 2
    process.raise_limits()
    state = State()
    try:
        if arguments[0] in _NEED_STATE and not os.path.exists(state.path("state.json")):
            raise Failure("nothing was ever started here: deploy/dev up")
        return command(state, arguments[1:]) or 0
    except Failure as failure:
        print(f"deploy/dev {arguments[0]}: {failure}", file=sys.stderr)
        return 1
    except (BrokenPipeError, KeyboardInterrupt):
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
