"""Measures one gateway, directly over TLS, on real Postgres and Kafka. Run by tests/bench/run."""
import json
import os
import shutil
import sys
import tempfile

from harness import Servers, process

TICK = os.sysconf("SC_CLK_TCK")
SIZE, CONNECTIONS = 6500, 64


def cpu_of(pid):
    """User and system seconds of a process, with its ended children."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(fields[n]) for n in (11, 12, 13, 14)) / TICK


def cpu(servers, gateway):
    leader = servers.pid("postgres")
    return {"gateway": cpu_of(gateway.process.pid), "kafka": cpu_of(servers.pid("kafka")),
            "postgres": cpu_of(leader) + sum(cpu_of(child) for child in process.children(leader)),
            "sender": sum(os.times()[2:4])}


def measure(servers, gateway, seconds, rate=None):
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
    print(f"  accepted/s {accepted / seconds:8.0f}   CPU us per event: "
          + "  ".join(f"{name} {(after[name] - before[name]) / accepted * 1e6:.0f}" for name in after))
    print("  send says: " + json.dumps(json.loads(done.stdout)), flush=True)
    return accepted / seconds


def main():
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    directory = tempfile.mkdtemp(prefix="hookgate-bench-")
    os.chmod(directory, 0o755)
    servers = Servers(directory)
    try:
        servers.start(instances=1)
        with servers.gateway("bench", {"threads": 1, "log": {"level": "warning"}}) as gateway:
            measure(servers, gateway, 2)  # warm: connections, the broker's compiler
            print(f"flat out, {CONNECTIONS} connections, {SIZE} bytes, {seconds} s")
            most = measure(servers, gateway, seconds)
            print("half of that rate")
            measure(servers, gateway, seconds, int(most / 2))
    finally:
        servers.stop()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
