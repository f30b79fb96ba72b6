"""A replicated Kafka: brokers lost one and two at a time under load, and topics that promise less than we do."""
import contextlib

import pytest

from cluster import Cluster
from harness import kafka, own_servers, until
from scenario import Expected, run

pytestmark = pytest.mark.all_faults
# What was in flight is decided by what is made 35 s later, and Kafka takes a while to be back: so long the load goes on.
FENCED = 60


@pytest.fixture(scope="module")
def cluster():
    with own_servers(Cluster, "trio") as made:
        yield made


def lost(*nodes):
    @contextlib.contextmanager
    def fault(servers, _random):
        for node in nodes:
            servers.stop_node(node)
        yield
        for node in nodes:
            servers.start_node(node)
        until("three brokers", lambda: servers.nodes_up() == 3, 60, 0.3)
    return fault


def test_one_broker_lost(cluster):
    """Two in-sync replicas are left: enough."""
    run(cluster, lost(2), Expected(doubles="counted"), rate=100, during=6, after=FENCED)


@pytest.mark.parametrize("during", [8, 60])
def test_too_few_in_sync_replicas(cluster, during):
    """One of three is left: the cluster refuses, and so events are parked until the others are back. What it had appended
    before it noticed can't be seen until then, and is not sent again, however long that takes."""
    # Seen once in a minute: a fsync on the one disk that all share kept a COMMIT for over half a second. Then both are away.
    expected = Expected(refusals=during, doubles="counted", recovery=10, proof="hookgate_parked_total")
    meetings, told = run(cluster, lost(2, 3), expected, rate=100, during=during, after=FENCED)
    assert told["acknowledged"] >= len(meetings)


@pytest.mark.parametrize("setting", ["min.insync.replicas=1", "unclean.leader.election.enable=true",
                                     "max.message.bytes=1000000"])
def test_weak_topic_is_refused(cluster, setting):
    """A topic that could lose what it acknowledged, or refuse what we take: the gateway does not serve."""
    name = setting.split("=")[0]

    def alter(*how):
        kafka.tool(cluster.state, "kafka.admin.ConfigCommand", "--entity-type", "topics", "--entity-name", "webhooks.zoom",
                   "--alter", *how)

    alter("--add-config", setting)
    with contextlib.ExitStack() as mending:
        mending.callback(alter, "--delete-config", name)
        with cluster.gateway("weak", wait=False) as weak:
            lines = until("a complaint", lambda: [line for line in weak.lines() if name in line.get("msg", "")], 30)
            assert "webhooks.zoom" in lines[0]["msg"] and name in lines[0]["msg"]
            assert weak.admin("/readyz").status == 503
            mending.close()
            weak.wait(75)
