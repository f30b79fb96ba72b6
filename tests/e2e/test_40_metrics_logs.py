"""What Prometheus and the log say, and what they must never say."""
import json
import re
import subprocess
import time
import urllib.parse
import urllib.request

import pytest

from harness import free_port, parse_metrics, until

NAMES = {"webhook_requests_total", "webhook_processing_duration_seconds_bucket",
         "webhook_processing_duration_seconds_sum", "webhook_processing_duration_seconds_count", "webhook_queue_size",
         "webhook_failures_total", "hookgate_build_info", "process_cpu_seconds_total", "process_resident_memory_bytes",
         "process_open_fds", "process_max_fds", "process_start_time_seconds", "hookgate_possible_doubles_total"}


@pytest.fixture
def direct(servers):
    made = servers.client(servers.direct_url())
    yield made
    made.close()


@pytest.fixture
def views(servers):
    return servers.views()


def test_promtool_finds_nothing(direct, views, zoom):
    direct.post(zoom())
    done = subprocess.run(["promtool", "check", "metrics"], input=views.metrics_text().encode(), capture_output=True,
                          check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_format_and_names(direct, views, zoom, fireflies, otter):
    direct.post(zoom())
    direct.post(fireflies())
    direct.post(otter())
    direct.post(zoom(secret="wrong"))
    answer = views.admin("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    samples = parse_metrics(answer.raw.decode())
    names = {name for name, _, _ in samples}
    assert NAMES <= names, NAMES - names
    series = [(name, tuple(sorted(labels.items()))) for name, labels, _ in samples]
    assert len(series) == len(set(series)), "a series occurs twice"
    assert all(labels.keys() == {"platform", "event_type", "status"}
               for name, labels, _ in samples if name == "webhook_requests_total")
    assert all(labels.keys() == {"platform", "error_type"}
               for name, labels, _ in samples if name == "webhook_failures_total")
    edges = [labels["le"] for name, labels, _ in samples
             if name == "webhook_processing_duration_seconds_bucket" and labels.get("platform") == "zoom"]
    assert "+Inf" in edges and any(float(edge) == 3 for edge in edges), "no edge at the deadline"


def test_requests_are_counted_by_outcome(direct, views, zoom):
    def count(**labels):
        return views.metric("webhook_requests_total", platform="zoom", **labels)

    event = zoom()
    before = {word: count(status=word) for word in ("accepted", "duplicate", "unauthorized", "ignored")}
    failures = views.metric("webhook_failures_total", platform="zoom", error_type="signature_mismatch")
    direct.post(event)
    direct.post(event)
    direct.post(zoom(secret="wrong"))
    direct.post(zoom(event="zoomroom.alert"))
    after = {word: count(status=word) for word in before}
    assert {word: after[word] - before[word] for word in before} == dict.fromkeys(before, 1)
    assert views.metric("webhook_failures_total", platform="zoom", error_type="signature_mismatch") - failures == 1
    assert views.metric("webhook_requests_total", platform="zoom", event_type="recording.completed",
                        status="accepted") >= 1
    assert views.metric("webhook_queue_size", platform="zoom") == 0


def test_cardinality_does_not_follow_the_senders(direct, views, zoom):
    def send(words):
        for word in words:
            direct.post(zoom(event=f"invented.type_{word}"))
            direct.post(zoom(path=f"/webhooks/invented-{word}"))
            direct.post(zoom(account=f"InventedAccount{word}"))
            direct.request("POST", f"/invented/{word}", b"{}", {"content-type": "application/json"})

    send(["first"])  # a series may appear with its first event
    before = len(parse_metrics(views.metrics_text()))
    send(range(30))
    assert len(parse_metrics(views.metrics_text())) == before


def test_prometheus_scrapes(servers, tmp_path, client, zoom):
    """A real one: promtool does not see two samples of one series."""
    client.post(zoom())
    port = free_port()
    targets = [urllib.parse.urlsplit(views.admin_url).netloc for views in servers.all_views()]
    config = tmp_path / "prometheus.yml"
    config.write_text("global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: hookgate\n  static_configs:\n"
                      f"  - targets: {json.dumps(targets)}\n")
    log = tmp_path / "log"

    def query(expression):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?query=" + urllib.parse.quote(expression),
                                    timeout=5) as answer:
            return json.load(answer)["data"]["result"]

    def scraped():
        try:
            return len([r for r in query("scrape_samples_scraped > 0") if r]) == len(targets)
        except OSError:
            return False

    with open(log, "wb") as output:
        process = subprocess.Popen(["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/data",
                                    f"--web.listen-address=127.0.0.1:{port}", "--log.level=debug"],
                                   stdout=output, stderr=output)
    try:
        until("a scrape of all instances", scraped, 30, 0.2)
        time.sleep(2.2)  # two more scrapes
        assert [result["value"][1] for result in query("up")] == ["1"] * len(targets)
        assert query('sum(webhook_requests_total{platform="zoom",status="accepted"}) > 0')
    finally:
        process.terminate()
        process.wait()
    text = log.read_text()
    assert not re.search(r"[Dd]uplicate sample|out of order|append failed", text), text[-2000:]


# Logs.

def test_one_line_per_delivery(direct, views, zoom):
    events = [zoom(), zoom(secret="wrong"), zoom(event="zoomroom.alert")]
    mark = views.mark()
    answers = [direct.post(event) for event in events]
    until("three lines", lambda: len(views.lines(mark, "delivery")) >= 3)
    time.sleep(0.2)
    lines = views.lines(mark, "delivery")
    assert len(lines) == 3
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
        assert line["level"] and line["platform"] == "zoom" and line["outcome"]
    # The words are those of webhook_failures_total{error_type}, so that a log line explains a count.
    assert [line["outcome"] for line in lines] == ["accepted", "signature_mismatch", "unsupported_event"]
    text = json.dumps(lines[0])
    assert answers[0].json["webhook_event_id"] in text and answers[0].json["external_id"] in text


def test_every_line_is_json(servers):
    for views in servers.all_views():
        with open(views.log, "rb") as file:
            for line in file:
                assert isinstance(json.loads(line), dict), line
