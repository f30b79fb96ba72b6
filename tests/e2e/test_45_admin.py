"""The private listener: liveness, readiness, and what to enter at a platform."""
import pytest


def test_livez_and_readyz(servers):
    for views in servers.all_views():
        assert views.admin("/livez").status == 200
        assert views.admin("/readyz").status == 200


@pytest.mark.parametrize("platform, event", [
    ("zoom", "recording.completed"), ("fireflies", "transcript.ready"), ("otter", "speech.created")])
def test_endpoint_url(servers, platform, event):
    answer = servers.views().admin(f"/webhooks/{platform}/endpoint-url")
    assert answer.status == 200 and answer.headers["content-type"].startswith("application/json")
    told = answer.json
    assert told["platform"] == platform
    assert told["url"] == f"{servers.url}/webhooks/{platform}"
    assert event in str(told["events"])
    assert servers.secret("otter-endpoint") not in answer.raw.decode()


def test_endpoint_url_tells_of_validation(servers):
    import json
    import time
    import signing
    body = json.dumps({"event": "endpoint.url_validation", "event_ts": int(time.time() * 1000),
                       "payload": {"plainToken": "qgg8vlvZRS6UYooatFL8Aw"}}).encode()
    with servers.gateway("validated") as gateway:
        assert gateway.admin("/webhooks/zoom/endpoint-url").json["validated"] is False
        made = gateway.client()
        assert made.post(signing.zoom_signed(body, "wrong")).status == 401
        assert gateway.admin("/webhooks/zoom/endpoint-url").json["validated"] is False
        assert made.post(signing.zoom_signed(body, servers.secret("zoom"))).status == 200
        assert gateway.admin("/webhooks/zoom/endpoint-url").json["validated"] is True
        made.close()


@pytest.mark.parametrize("path, method, status", [
    ("/", "GET", 404), ("/webhooks/nosuch/endpoint-url", "GET", 404), ("/metrics", "POST", 405),
    ("/readyz", "DELETE", 405), ("/metrics/", "GET", 404), ("/webhooks/zoom", "GET", 404)])
def test_other_requests(servers, path, method, status):
    assert servers.views().admin(path, method).status == status


def test_webhooks_are_not_served_here(servers, zoom):
    """The private listener takes no events, and the public ones give no metrics (test_20)."""
    event = zoom()
    made = servers.client(servers.views().admin_url)
    assert made.post(event).status in (404, 405)
    made.close()
