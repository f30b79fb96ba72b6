"""Measures one gateway, directly over TLS, on real Postgres and Kafka; prints one table. Run by tests/bench/run."""
import glob
import json
import os
import re
import shutil
import sys
import tempfile

import yaml

from harness import ROOT, Servers, kafka, postgres, process

TICK = os.sysconf("SC_CLK_TCK")
SIZE, CONNECTIONS = 6500, 64
# A broker whose code is not compiled yet needs three times the CPU for each event.
WARM = 15


def cpu_of(pid):
    """User and system seconds of a process, with its ended children."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(fields[n]) for n in (11, 12, 13, 14)) / TICK


def cpu(servers, gateway):
    return {"gateway": cpu_of(gateway.process.pid),
            "Postgres": sum(cpu_of(pid) for pid in process.family(servers.pid("postgres"))),
            "Kafka": cpu_of(servers.pid("kafka")), "sender": sum(os.times()[2:4])}


def measure(servers, gateway, seconds, rate=None):
    """What `hookgate send` and /proc say: each connection's next event on its answer, or at fixed moments."""
    more = ["--rate", str(rate)] if rate else []
    before = cpu(servers, gateway)
    accepted = gateway.metric("webhook_requests_total", status="accepted")
    done = servers.command("send", "zoom", "--url", gateway.url, "--secret-file", servers.secret_file("zoom"),
                           "--ca", servers.ca, "--account", servers.zoom_account, "--event", "recording.completed",
                           "--size", SIZE, "--concurrency", CONNECTIONS, "--seconds", seconds, "--json", *more,
                           timeout=seconds + 60)
    accepted = gateway.metric("webhook_requests_total", status="accepted") - accepted
    after = cpu(servers, gateway)
    if not done.stdout or not accepted:
        sys.exit(f"send failed: {done.stderr.decode(errors='replace')}")
    told = json.loads(done.stdout)
    return {"rate": accepted / told["seconds"], "p50": told["latency_ms"]["p50"], "p99": told["latency_ms"]["p99"],
            "longest": told["latency_ms"]["max"],
            "refused": told["sent"] - told["accepted"], "unsent": told["unsent"],
            "memory": process.resident_mib(gateway.process.pid),
            "cpu": {name: (after[name] - before[name]) / accepted * 1e6 for name in after}}


def setting(servers, gateway, seconds):
    """Figures without it can't be compared."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        model = re.search(r"^model name\s*:\s*(.*)$", file.read(), re.MULTILINE)
    with open(os.path.join(ROOT, "conf", "hookgate.yaml"), encoding="utf-8") as file:
        lanes = yaml.safe_load(file)["postgres"]["lanes"]
    broker = glob.glob(os.path.join(kafka.LIBS, "kafka_*.jar"))[0]
    yield "machine", f"{os.cpu_count()} cores, {model.group(1) if model else os.uname().machine}, Linux {os.uname().release}"
    yield "load average at the start", " ".join(f"{load:.2f}" for load in os.getloadavg())
    yield "versions", ", ".join((
        servers.command("version").stdout.decode().split("\n")[0],
        "Postgres " + postgres.query(servers.state, "SHOW server_version").split()[0],
        "Kafka " + re.search(r"-([0-9.]+)\.jar$", broker).group(1)))
    yield "gateway", f"1 instance, threads {gateway.config['threads']}, lanes of each {lanes}, direct over TLS"
    yield "load", f"{CONNECTIONS} connections, bodies of {SIZE} bytes, {seconds} s each after {WARM} s of warming"
    yield "all on one machine", "sender, gateway, Postgres (fsync on), Kafka (1 node)"


def report(closed, opened):
    """Each line's figure with all connections busy, and at half of that rate."""
    yield "", "flat out", "half rate"
    yield "events accepted/s", f"{closed['rate']:.0f}", f"{opened['rate']:.0f}"
    for name in ("p50", "p99", "longest"):
        yield f"{name} answer, ms", f"{closed[name]:.2f}", f"{opened[name]:.2f}"
    for name, value in closed["cpu"].items():
        yield f"CPU us per event, {name}", f"{value:.0f}", f"{opened['cpu'][name]:.0f}"
    yield "resident memory, MiB", str(closed["memory"]), str(opened["memory"])
    yield "not accepted", str(closed["refused"]), str(opened["refused"])
    yield "not sent, though due", "-", str(opened["unsent"])


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    directory = tempfile.mkdtemp(prefix="hookgate-bench-")
    os.chmod(directory, 0o755)
    servers = Servers(directory)
    try:
        # The measured one is apart from those behind nginx: warnings alone, as a log would be measured too.
        servers.start(instances=1)
        with servers.gateway("bench", {"log": {"level": "warning"}}) as gateway:
            rows = list(setting(servers, gateway, seconds))  # before our own load
            measure(servers, gateway, WARM)
            closed = measure(servers, gateway, seconds)
            opened = measure(servers, gateway, seconds, int(closed["rate"] / 2))
    finally:
        servers.stop()
        shutil.rmtree(directory, ignore_errors=True)
    rows.append(("load average at the end", " ".join(f"{load:.2f}" for load in os.getloadavg())))
    for name, value in rows:
        print(f"{name:<26}{value}")
    print()
    for name, *values in report(closed, opened):
        print(f"{name:<26}" + "".join(f"{value:>12}" for value in values))


if __name__ == "__main__":
    main()
