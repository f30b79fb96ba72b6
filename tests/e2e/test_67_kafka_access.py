"""Kafka refuses us: the user is gone, the password is wrong, the rights are taken away. Events are parked, the log
says what to do, and once that is done nobody has to restart anything."""
import contextlib
import os
import signal

import pytest

import signing
from harness import Servers, kafka, own_servers, until, write_secret
from scenario import Expected, run

pytestmark = pytest.mark.all_faults
USER, PASSWORD, WRONG = "hookgate", "kept-well-4711", "guessed-badly-0815"
TOPICS = ("--topic", "webhooks.", "--resource-pattern-type", "prefixed")
RIGHTS = ("Create", "Describe", "DescribeConfigs", "Read", "Write", "Delete")
SETTINGS = """
  password_file: "{password}"
  settings:
    security.protocol: sasl_plaintext
    sasl.mechanisms: PLAIN
    sasl.username: {user}
"""


class Guarded(Servers):
    """Servers of their own whose Kafka wants a password from the gateways, and checks their rights. Whoever comes by
    the other listener is its master. PLAIN, because Debian 12's librdkafka can't do SCRAM with Kafka 4 (its issue 4895);
    so a broker learns of users when it starts."""

    def __init__(self, directory):
        super().__init__(directory)
        self.known = PASSWORD
        self.password = self.password_file("kafka-password", PASSWORD)
        self.set_template(self._guarded)

    def _guarded(self, text):
        head, hook, rest = text.replace("@BROKERS@", f"127.0.0.1:{self.state.port('sasl')}").partition(
            "  create_topics: true\n")
        assert hook
        return head + hook + SETTINGS.lstrip("\n").format(password=self.password, user=USER) + rest

    def password_file(self, name, password):
        return write_secret(os.path.join(self.state.directory, name), password)

    def start_kafka(self):
        fresh = not self.state.has_port("kafka")
        plain, sasl = self.state.port("kafka"), self.state.port("sasl")
        kafka.start(self.state, {
            "listeners": f"PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},"
                         f"CONTROLLER://127.0.0.1:{self.state.port('kafka-controller')}",
            "advertised.listeners": f"PLAINTEXT://127.0.0.1:{plain},"
                                    f"SASL_PLAINTEXT://127.0.0.1:{sasl}",
            "listener.security.protocol.map":
                "PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config":
                "org.apache.kafka.common.security.plain.PlainLoginModule required "
                + (f'user_{USER}="{self.known}";' if self.known else 'user_other="x";'),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS"})
        if fresh:
            self.rights("--add", "--allow-principal", f"User:{USER}", *TOPICS,
                        *(word for right in RIGHTS for word in ("--operation", right)))

    # What an administrator does.

    def set_user(self, password):
        """None: there is no such user any more. Everybody has to connect anew."""
        self.stop_kafka(signal.SIGTERM)
        self.known = password
        self.start_kafka()

    def rights(self, *arguments):
        kafka.tool(self.state, "org.apache.kafka.tools.AclCommand", *arguments)


@pytest.fixture(scope="module")
def guarded():
    with own_servers(Guarded, "access", instances=2) as made:
        yield made


@pytest.fixture
def accepted(guarded):
    """Sends an event to a gateway, which must take it; returns its id."""
    def send(to, url=None):
        made = to.client(url) if url else to.client()
        try:
            body = signing.zoom_body(guarded.zoom_account)
            answer = made.post(signing.zoom_signed(body, guarded.secret("zoom"), None, "/webhooks/zoom"))
            assert (answer.status, answer.json["status"]) == (200, "accepted")
            return answer.json["webhook_event_id"]
        finally:
            made.close()
    return send


@contextlib.contextmanager
def user_deleted(servers):
    servers.set_user(None)
    try:
        yield
    finally:
        servers.set_user(PASSWORD)


@contextlib.contextmanager
def write_denied(servers, *topics):
    rule = ("--deny-principal", f"User:{USER}", "--operation", "Write", *topics)
    servers.rights("--add", *rule)
    try:
        yield
    finally:
        servers.rights("--remove", "--force", *rule)


def told(views, mark, *words):
    """The lines of the log at level error that have all of these words."""
    return [line for line in views.lines(mark) if line["level"] == "error" and all(word in line["msg"] for word in words)]


def parked_everywhere(servers, fault, words, metric, **how):
    """Under load: each instance parks, says why and counts it; afterwards everything is in its topic, once."""
    marks = [views.mark() for views in servers.all_views()]
    before = [(views.metric("hookgate_parked_total"), metric(views)) for views in servers.all_views()]
    pids = [servers.pid(f"hookgate-{number}") for number in (1, 2)]

    @contextlib.contextmanager
    def observed(servers, _random):
        with fault(servers):
            yield
            for views, mark, (parked, count) in zip(servers.all_views(), marks, before):
                assert views.admin("/readyz").status == 200
                assert views.metric("hookgate_parked_total") > parked
                assert views.metric("hookgate_broker_breakers_open") > 0
                assert metric(views) > count
                assert told(views, mark, *words), [line["msg"] for line in views.lines(mark)]

    run(servers, observed, Expected(), rate=100, before=2, **how)
    assert pids == [servers.pid(f"hookgate-{number}") for number in (1, 2)]
    for views, mark in zip(servers.all_views(), marks):
        until("breakers are closed", lambda views=views: views.metric("hookgate_broker_breakers_open") == 0, 5)
        print(f"{len(views.lines(mark))} lines, {views.metric('hookgate_broker_producers_renewed_total'):.0f} producers renewed")


def refused(cause):
    return lambda views: views.metric("hookgate_broker_refusals_total", cause=cause)


def test_user_deleted(guarded):
    """Every connection has to be made again, and none can be."""
    parked_everywhere(guarded, user_deleted, ("kafka.password_file", USER), refused("authentication"), during=8, after=8)


def test_write_denied(guarded):
    """The topic is there, but may not be written to."""
    parked_everywhere(guarded, lambda servers: write_denied(servers, "--topic", "webhooks.zoom"), ("webhooks.zoom", "Write"),
                      refused("authorization"), during=6, after=8)


def test_every_write_denied(guarded):
    """A new producer does not even get an id, which librdkafka takes for its end."""
    marks = [views.mark() for views in guarded.all_views()]
    parked_everywhere(guarded, lambda servers: write_denied(servers, *TOPICS), ("Write",), refused("authorization"),
                      during=6, after=8)
    for views, mark in zip(guarded.all_views(), marks):
        assert told(views, mark, "Cluster authorization failed")


def _published(servers, event_id):
    until("it is published", lambda: servers.receipts(event_id)[0]["status"] == "published", 20, 0.2)
    assert servers.event_ids()[event_id] == 1


def test_started_without_a_user(guarded, accepted):
    """As without Kafka: it is ready, parks, and goes on when it may."""
    guarded.set_user(None)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: guarded.known or guarded.set_user(PASSWORD))
        late = stack.enter_context(guarded.gateway("locked-out"))
        assert late.admin("/readyz").status == 200
        event_id = accepted(late)
        assert guarded.receipts(event_id)[0]["status"] == "parked"
        assert told(late, 0, "kafka.password_file", USER)
        assert late.metric("hookgate_broker_refusals_total", cause="authentication") > 0
        guarded.set_user(PASSWORD)
        _published(guarded, event_id)
        until("events go to Kafka again", lambda: guarded.receipts(accepted(late))[0]["status"] == "published", 15, 0.3)


def test_started_with_a_wrong_password(guarded, accepted):
    """The others go on; this one says what is wrong, parks, and takes the right one from its file. No line of the
    log has either."""
    path = guarded.password_file("another-password", WRONG)
    with guarded.gateway("mistaken", {"kafka": {"password_file": path}}) as mistaken:
        assert mistaken.admin("/readyz").status == 200
        line = until("a complaint", lambda: told(mistaken, 0, "kafka.password_file", USER), 10)[0]
        assert line["event"] == "broker_refuses"
        event_id = accepted(mistaken)
        guarded.password_file("another-password", PASSWORD)
        _published(guarded, event_id)
        until("events go to Kafka again", lambda: guarded.receipts(accepted(mistaken))[0]["status"] == "published", 15, 0.3)
        with open(mistaken.log, encoding="utf-8") as file:
            text = file.read()
        assert WRONG not in text and PASSWORD not in text


def test_password_changed(guarded, accepted):
    """The user has another password, in Kafka and then in the file: taken without a restart or a reload."""
    guarded.set_user("another-one")
    try:
        event_id = accepted(guarded)
        guarded.password_file("kafka-password", "another-one")
        _published(guarded, event_id)
        for number in (1, 2):
            url = guarded.direct_url(number)
            until("events go to Kafka again",
                  lambda url=url: guarded.receipts(accepted(guarded, url))[0]["status"] == "published", 15, 0.3)
    finally:
        guarded.password_file("kafka-password", PASSWORD)
        guarded.set_user(PASSWORD)
