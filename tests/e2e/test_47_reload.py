"""Reload: everything new or nothing, told to the letter, while events go on."""
import contextlib
import hashlib
import hmac
import json
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
import threading
import time
import uuid

import pytest

import signing
from harness import ROOT, certificate, until, write_secret
from load import Load

# Written from platforms/README.md for a vendor that is not shipped; its documentation is
# https://developer.paddle.com/webhooks/signature-verification.
PADDLE = """\
name: paddle
title: Paddle
docs: https://developer.paddle.com/webhooks/signature-verification
signatures:
  - algorithm: hmac-sha256
    header: paddle-signature            # ts=1671552777;h1=<hex>
    form: pairs
    separator: ";"
    version: h1
    message: "{timestamp}:{body}"
timestamp: {pair: ts, unit: s, tolerance: 5m}
event_type: /event_type
events:
  - type: transaction.completed
    required: [/data/id]
id: [/event_id]
time: {json: /occurred_at, unit: rfc3339}
workspace: {account: /data/custom_data/account}
limited: {status: 429, retry_after: 60s}
"""
PADDLE_SECRET = "pdl_ntfset_01gkdqxgpvkb2b5t6bj4c9yq6r"


def paddle_event(account, secret=PADDLE_SECRET):
    body = json.dumps({
        "event_id": "evt_" + uuid.uuid4().hex, "event_type": "transaction.completed",
        "occurred_at": "2026-04-12T10:18:49.621022Z", "notification_id": "ntf_1",
        "data": {"id": "txn_1", "status": "completed", "custom_data": {"account": account}}}).encode()
    timestamp = int(time.time())
    mark = hmac.new(secret.encode(), f"{timestamp}:".encode() + body, hashlib.sha256).hexdigest()
    return signing.Event("paddle", "/webhooks/paddle", body, {
        "content-type": "application/json", "paddle-signature": f"ts={timestamp};h1={mark}"})


def ask_reload(servers, gateway, *arguments):
    done = servers.command("reload", *(arguments or ("--config", gateway.config_path)))
    done.out, done.err = done.stdout.decode(), done.stderr.decode()
    return done


def hang_up(gateway):
    """SIGHUP, and the verdict's log lines."""
    mark = gateway.mark()
    gateway.send_signal(signal.SIGHUP)
    gateway.wait_line(mark, lambda line: line["event"] in ("reload_taken", "reload_refused"), 10)
    return mark


def line_of(path, text):
    with open(path, encoding="utf-8") as file:
        return next(number for number, line in enumerate(file, 1) if text in line)


@contextlib.contextmanager
def own_platforms(servers, name, overrides=None):
    """A gateway with a folder of platforms that a test may change."""
    directory = os.path.join(servers.state.make_directory("extra"), name + "-platforms")
    shutil.rmtree(directory, ignore_errors=True)
    shutil.copytree(os.path.join(ROOT, "platforms"), directory)
    merged = {"platforms": {"directory": directory}, **(overrides or {})}
    with servers.gateway(name, merged) as gateway:
        gateway.platforms = directory
        yield gateway


def add_paddle(servers, gateway, text=PADDLE):
    folder = os.path.join(gateway.platforms, "paddle")
    os.makedirs(folder, exist_ok=True)
    path = os.path.join(folder, "platform.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    secret = write_secret(os.path.join(gateway.directory, "paddle-secret"), PADDLE_SECRET)
    gateway.config["platforms"]["enabled"]["paddle"] = {"secret_files": [secret]}
    gateway.save()
    return path


@pytest.fixture
def paddle_account(servers):
    account = "paddle-" + uuid.uuid4().hex[:12]
    servers.query("INSERT INTO core.integrations (workspace_id, platform, account_ids) VALUES ('demo', 'paddle', %s)",
                  [account])
    yield account
    servers.query("DELETE FROM core.integrations WHERE account_ids = %s", [account])


def test_a_platform_is_added_while_serving(servers, zoom, paddle_account):
    with own_platforms(servers, "added") as gateway:
        client = gateway.client()
        event = paddle_event(paddle_account)
        assert client.post(event).status == 404
        add_paddle(servers, gateway)
        checked = servers.command("check", "--config", gateway.config_path)
        assert checked.returncode == 0, checked.stderr
        mark = hang_up(gateway)
        assert "new: paddle" in str(gateway.lines(mark, "reload_taken"))
        until("the new platform", lambda: client.post(event).status == 200)
        answer = client.post(event)
        assert answer.json["status"] == "duplicate"
        [receipt] = servers.receipts(answer.json["webhook_event_id"])
        record = servers.record_at("webhooks.paddle", receipt["kafka_partition"], receipt["kafka_offset"])
        assert record.value == event.body and record.header("hookgate-secret") == "paddle-secret"
        assert client.post(zoom()).status == 200
        # And it goes again.
        del gateway.config["platforms"]["enabled"]["paddle"]
        gateway.save()
        done = ask_reload(servers, gateway)
        assert done.returncode == 0 and "gone: paddle" in done.out, done
        assert client.post(event).status == 404
        client.close()


def test_a_typo_is_told_and_nothing_changes(servers, zoom, paddle_account):
    with own_platforms(servers, "typo") as gateway:
        client = gateway.client()
        # Everything else in this reload is fine, and none of it may be taken.
        path = add_paddle(servers, gateway, PADDLE.replace("hmac-sha256", "hmac-sha265"))
        gateway.config["public_url"] = "https://other.example"
        gateway.save()
        place = f"{path}:{line_of(path, 'sha265')}:16: "
        checked = servers.command("check", "--config", gateway.config_path)
        assert checked.returncode == 2 and place in checked.stderr.decode()
        mark = hang_up(gateway)
        [line] = gateway.lines(mark, "reload_refused")
        assert line["msg"].startswith(place) and "hmac-sha256" in line["msg"], line
        done = ask_reload(servers, gateway)
        assert done.returncode == 1 and f"refused: {place}" in done.err and "nothing was changed" in done.err
        assert gateway.metric("hookgate_config_last_reload_successful") == 0
        assert gateway.metric("hookgate_config_reload_failures_total") == 2
        assert client.post(paddle_event(paddle_account)).status == 404
        assert client.post(zoom()).status == 200
        assert "other.example" not in gateway.admin("/webhooks/zoom/endpoint-url").raw.decode()
        began = time.time()
        add_paddle(servers, gateway)
        done = ask_reload(servers, gateway)
        assert done.returncode == 0 and f"{gateway.config_path}:" in done.out and "public_url: changed" in done.out, done
        assert gateway.metric("hookgate_config_last_reload_successful") == 1
        assert gateway.metric("hookgate_config_last_reload_success_timestamp_seconds") >= int(began)
        assert "other.example" in gateway.admin("/webhooks/zoom/endpoint-url").raw.decode()
        assert client.post(paddle_event(paddle_account)).status == 200
        client.close()


def test_a_broken_configuration_is_refused(servers, zoom):
    with servers.gateway("broken") as gateway:
        good = open(gateway.config_path, encoding="utf-8").read()
        with open(gateway.config_path, "a", encoding="utf-8") as file:
            file.write("lgo: {level: debug}\n")
        mark = hang_up(gateway)
        [line] = gateway.lines(mark, "reload_refused")
        number = good.count("\n") + 1
        assert line["msg"].startswith(f"{gateway.config_path}:{number}:1: ") and "log" in line["msg"], line
        # The command reads the file too, to find the gateway.
        done = ask_reload(servers, gateway)
        assert done.returncode == 2 and f":{number}:1: " in done.err
        address = gateway.config["listen"]["admin"]
        done = ask_reload(servers, gateway, "--admin", address)
        assert done.returncode == 1 and f"refused: {gateway.config_path}:{number}:1: " in done.err
        client = gateway.client()
        assert client.post(zoom()).status == 200
        client.close()


def test_no_platform_comes_where_events_are_held(servers, zoom):
    with servers.gateway("held-topic") as gateway:
        topic = gateway.config.get("hold", {}).get("topic", "webhooks.hold")
        # The file alone would be fine, but `hold` needs a restart: the old topic stays the one that is emptied.
        gateway.config["hold"] = {**gateway.config.get("hold", {}), "topic": "elsewhere.hold"}
        gateway.config["platforms"]["enabled"]["otter"] = {"topic": topic}
        gateway.save()
        done = ask_reload(servers, gateway)
        line = line_of(gateway.config_path, f"topic: {topic}")
        assert done.returncode == 1, done
        assert re.search(rf":{line}:\d+: platforms.enabled.otter.topic: {re.escape(topic)} would be both", done.err), done.err
        client = gateway.client()
        assert client.post(zoom()).status == 200
        client.close()


def test_what_needs_a_restart_is_told(servers, zoom):
    with servers.gateway("restart") as gateway:
        gateway.config["threads"] = 7
        gateway.config["listen"]["body"] = "2MiB"
        gateway.config["deadlines"]["claim"] = "300ms"
        gateway.config["postgres"]["conninfo"] = "host=nowhere.invalid"
        gateway.config["log"] = {"level": "warning"}
        gateway.save()
        client = gateway.client()
        mark = gateway.mark()
        assert client.post(zoom()).status == 200
        gateway.wait_line(mark, lambda line: line["event"] == "delivery")
        for _ in range(2):  # as long as the file differs from what runs
            done = ask_reload(servers, gateway)
            assert done.returncode == 0, done
            told = set(re.findall(rf"^restart: {re.escape(gateway.config_path)}:\d+:\d+: (\S+): ", done.out, re.M))
            assert told == {"threads", "listen.body", "deadlines.claim", "postgres.conninfo"}, done.out
        line = line_of(gateway.config_path, "body: 2MiB")
        assert f"restart: {gateway.config_path}:{line}:9: listen.body: " in done.out
        # What needs no restart was taken.
        mark = gateway.mark()
        assert client.post(zoom()).status == 200
        assert client.post(zoom(secret="wrong")).status == 401
        gateway.wait_line(mark, lambda line: line["event"] == "delivery" and line["level"] == "warning")
        assert len(gateway.lines(mark, "delivery")) == 1
        client.close()


def test_no_gateway_and_wrong_usage(servers):
    with servers.gateway("ended") as gateway:
        config, address = gateway.config_path, gateway.config["listen"]["admin"]
        assert gateway.admin("/reload").status == 405
        assert gateway.terminate() == 0
    done = servers.command("reload", "--config", config)
    assert done.returncode == 1 and address in done.stderr.decode()
    for wrong in (["--config"], ["--nosuch"], ["x"], ["--config", config, "--admin", address]):
        assert servers.command("reload", *wrong).returncode == 2, wrong


def test_reload_while_postgres_is_not_there(servers):
    """Nothing was ever loaded: the configuration is taken all the same, and nothing is served."""
    nowhere = {"postgres": {"conninfo": "host=127.0.0.1 port=1 dbname=none user=none"}}
    with servers.gateway("noposgres", nowhere, wait=False) as gateway:
        until("the private listener", lambda: _answers(gateway))
        gateway.config["public_url"] = "https://other.example"
        gateway.save()
        done = ask_reload(servers, gateway)
        assert done.returncode == 0 and "public_url: changed" in done.out
        assert "other.example" in gateway.admin("/webhooks/zoom/endpoint-url").raw.decode()
        assert "directory: not loaded yet" in gateway.admin("/readyz").raw.decode()


def _answers(gateway):
    try:
        return gateway.admin("/livez").status == 200
    except OSError:
        return False


def test_what_did_not_change_is_not_built_again(servers, zoom):
    often = {"postgres": {"refresh": "100ms"}, "log": {"level": "debug"}}
    with servers.gateway("unchanged", often) as gateway:
        mark = gateway.mark()
        first = gateway.metric("hookgate_directory_loaded_timestamp_seconds")
        until("a later reading", lambda: gateway.metric("hookgate_directory_loaded_timestamp_seconds") >= first + 2)
        assert gateway.lines(mark, "directory_loaded") == []
        servers.query("UPDATE core.integrations SET status = 'paused' WHERE account_ids = %s", [servers.limited_account])
        try:
            gateway.wait_line(mark, lambda line: line["event"] == "directory_loaded")
            client = gateway.client()
            assert client.post(zoom(account=servers.limited_account)).json["status"] == "ignored"
            client.close()
        finally:
            servers.query("UPDATE core.integrations SET status = 'connected' WHERE account_ids = %s",
                          [servers.limited_account])


def test_a_new_topic_needs_kafka(servers, zoom):
    with servers.gateway("topics") as gateway:
        gateway.config["kafka"]["create_topics"] = False
        gateway.config["platforms"]["enabled"]["zoom"]["topic"] = "not.there"
        gateway.save()
        done = ask_reload(servers, gateway)
        assert done.returncode == 1 and "not.there does not exist; make it: kafka-topics.sh" in done.err, done
        client = gateway.client()
        assert client.post(zoom()).status == 200
        gateway.config["kafka"]["create_topics"] = True
        gateway.config["platforms"]["enabled"]["zoom"]["topic"] = "made.by.reload"
        gateway.save()
        assert ask_reload(servers, gateway).returncode == 0
        answer = client.post(zoom())
        assert answer.status == 200
        assert servers.receipts(answer.json["webhook_event_id"])[0]["kafka_topic"] == "made.by.reload"
        client.close()


def test_reload_under_load_loses_and_refuses_nothing(servers):
    with own_platforms(servers, "busy", {"threads": 2}) as gateway:
        add_paddle(servers, gateway)
        with Load(gateway.url, servers.ca, servers.secret("zoom"), servers.zoom_account, rate=200) as load:
            ends = time.monotonic() + 8
            reloads = 0
            while time.monotonic() < ends:
                enabled = gateway.config["platforms"]["enabled"]
                if reloads % 2:
                    enabled["paddle"] = {"secret_files": [os.path.join(gateway.directory, "paddle-secret")]}
                else:
                    enabled.pop("paddle", None)
                gateway.save()
                done = ask_reload(servers, gateway)
                assert done.returncode == 0, done
                reloads += 1
            results = load.stop()
        assert reloads >= 5 and len(results) > 400
        assert {sent.status for sent in results} == {200}, [sent for sent in results if sent.status != 200][:5]
        counts = servers.event_ids()
        assert all(counts.get(sent.event_id) == 1 for sent in results)
        assert max(sent.seconds for sent in results) < 2.5


def test_the_certificate_is_swapped_under_new_connections(servers, zoom):
    """Connections that say nothing for a while, too: libh2o keeps the bare pointer of their context."""
    # Memory that was given back is overwritten, so that whoever still uses it falls over.
    fill = {"MALLOC_PERTURB_": "85", "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":max_free_fill_size=100000"}
    with servers.gateway("certificate", environment=fill) as gateway:
        first, second = (certificate(servers, gateway.directory, name) for name in ("first", "second"))
        _install(gateway, first)
        gateway.save()
        assert ask_reload(servers, gateway).returncode == 0
        stop, faults, served = threading.Event(), [], set()
        threads = [threading.Thread(target=_connect, args=(gateway, stop, faults, served), daemon=True)
                   for _ in range(4)]
        for thread in threads:
            thread.start()
        open_one = gateway.client()
        assert open_one.post(zoom()).status == 200
        silent = _silent(gateway, 20)
        for number in range(12):
            _install(gateway, (second, first)[number % 2])
            assert ask_reload(servers, gateway).returncode == 0
            assert _serial(gateway) == _serial_of((second, first)[number % 2][0])
            silent += _silent(gateway, 5)
        for late in silent:  # accepted under a context that was replaced since
            wrapped = ssl.create_default_context(cafile=servers.ca).wrap_socket(late, server_hostname="127.0.0.1")
            wrapped.close()
        stop.set()
        for thread in threads:
            thread.join()
        assert not faults, faults[:3]
        assert served == {_serial_of(first[0]), _serial_of(second[0])}
        assert open_one.post(zoom()).status == 200  # a connection outlives the certificate that it began with
        open_one.close()
        with open(gateway.config["listen"]["certificate"], "w", encoding="ascii") as file:
            file.write("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        done = ask_reload(servers, gateway)
        assert done.returncode == 1 and gateway.config["listen"]["certificate"] in done.err
        assert _serial(gateway) == _serial_of(first[0])


def _install(gateway, pair):
    """Into the files that the configuration names; a renewal does the same."""
    for key, source in zip(("certificate", "key"), pair):
        path = os.path.join(gateway.directory, "served." + key)
        shutil.copy2(source, path + ".new")
        os.rename(path + ".new", path)
        gateway.config["listen"][key] = path


def _serial_of(path):
    done = subprocess.run(["openssl", "x509", "-in", path, "-noout", "-serial"], check=True, capture_output=True)
    return int(done.stdout.decode().strip().split("=")[1], 16)


def _serial(gateway):
    """Of the certificate that a new connection is shown."""
    context = ssl.create_default_context(cafile=gateway.servers.ca)
    with socket.create_connection(("127.0.0.1", gateway.ports["https"]), 5) as plain:
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as wrapped:
            return int(wrapped.getpeercert()["serialNumber"], 16)


def _silent(gateway, count):
    """Connections that have not begun their handshake."""
    return [socket.create_connection(("127.0.0.1", gateway.ports["https"]), 5) for _ in range(count)]


def _connect(gateway, stop, faults, served):
    while not stop.is_set():
        try:
            served.add(_serial(gateway))
        except OSError as error:
            faults.append(error)


@pytest.mark.faults
def test_reload_while_postgres_is_away(servers, zoom, otter):
    """The directory is built for the new platforms from the rows that were read before."""
    with servers.gateway("away") as gateway:
        client = gateway.client()
        assert client.post(otter()).status == 200
        with servers.without_postgres():
            until("the loss", lambda: gateway.metric("hookgate_store_lanes_ready") == 0, 10)
            secret = write_secret(os.path.join(gateway.directory, "another"), "another secret")
            gateway.config["platforms"]["enabled"]["zoom"]["secret_files"] = [secret]
            gateway.save()
            done = ask_reload(servers, gateway)
            assert done.returncode == 0, done
            # Authentic ones come as far as Postgres' absence lets them; the others are known for what they are.
            assert client.post(zoom(secret="another secret")).status not in (401, 404)
            assert client.post(zoom()).status == 401
            assert client.post(otter()).status not in (401, 404)
            assert client.post(otter(token="x" * 24)).status == 404
        until("Postgres is back", lambda: client.post(zoom(secret="another secret")).status == 200, 15)
        assert client.post(otter()).status == 200
        client.close()
