"""Three Kafka brokers that replicate: what one broker can't show."""
import os
import signal
import subprocess

from harness import Servers, kafka, process
from devtool.progress import wait_for
from devtool.template import fill, write

NODES = (1, 2, 3)


class Cluster(Servers):
    """Servers of their own whose Kafka has three nodes; the gateways check durability as in production."""

    def __init__(self, directory):
        super().__init__(directory)
        self.ports = {node: self.state.port("kafka" if node == 1 else f"kafka-{node}") for node in NODES}
        self.controllers = {node: self.state.port(f"kafka-controller-{node}") for node in NODES}
        self.records_of = {}
        brokers = ",".join(f"127.0.0.1:{port}" for port in self.ports.values())
        self.set_template(lambda text: text.replace("@BROKERS@", brokers).replace("replication: 1", "replication: 3")
                          .replace("allow_weak_durability: true", "allow_weak_durability: false"))

    def _properties(self, node):
        base = self.state.make_directory(f"kafka-{node}")
        with open(os.path.join(self.state.root, "deploy", "kafka-dev.properties"), encoding="utf-8") as file:
            text = fill(file.read(), {"BROKER_PORT": self.ports[node], "ADVERTISED_PORT": self.ports[node],
                                      "CONTROLLER_PORT": self.controllers[node], "DATA": os.path.join(base, "data")})
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in self.controllers.items())
        lines = [line for line in text.splitlines() if not line.startswith(("node.id=", "controller.quorum.voters="))]
        lines += [f"node.id={node}", f"controller.quorum.voters={voters}", "min.insync.replicas=2",
                  "replica.lag.time.max.ms=3000", "controlled.shutdown.enable=true"]
        path = os.path.join(base, "server.properties")
        write(path, "\n".join(lines) + "\n")
        return base, path

    def _format(self, identity):
        for node in NODES:
            base, path = self._properties(node)
            if not kafka.is_formatted(os.path.join(base, "data")):
                kafka.format_storage(identity, path)

    def start_kafka(self):
        kafka.fetch()
        identity = self.state.path("kafka-identity")
        if not os.path.exists(identity):
            write(identity, kafka.new_identity())
        with open(identity, encoding="ascii") as file:
            self._format(file.read())
        for node in NODES:
            self.start_node(node)
        wait_for("three brokers", lambda: self.nodes_up() == 3, 90, interval=0.3)

    def start_node(self, node):
        if process.alive(self.records_of.get(node)):
            return
        base, path = self._properties(node)
        self.records_of[node] = kafka.launch(path, self.state.log(f"kafka-{node}"), base, heap="256m")

    def stop_node(self, node, number=signal.SIGKILL):
        process.stop(self.records_of.get(node), number, 30)

    def stop_kafka(self, number=signal.SIGKILL):
        for node in NODES:
            self.stop_node(node, number)

    def end_kafka(self):
        self.stop_kafka(signal.SIGTERM)

    def nodes_up(self):
        """Brokers that the cluster's metadata name, as told by any of them."""
        for port in self.ports.values():
            done = subprocess.run(["kcat", "-b", f"127.0.0.1:{port}", "-L", "-m", "2"], capture_output=True, text=True,
                                  check=False)
            if done.returncode == 0:
                return sum(line.startswith("  broker ") for line in done.stdout.splitlines())
        return 0
