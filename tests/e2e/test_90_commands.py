"""The commands of the binary: exit status and what they print are what scripts rely on."""
import json
import os
import re
import shutil
import time

import pytest
import yaml

from harness import ROOT


def write(path, text, mode=0o600):
    path.write_text(text)
    os.chmod(path, mode)
    return path


@pytest.fixture
def config(servers, tmp_path):
    """Writes a configuration: that of deploy/dev, changed by a function on its text or its values."""
    def make(change=None, text=None):
        values = servers.config({"https": 0, "plain": 0, "admin": 0}, {})
        if change:
            change(values)
        return write(tmp_path / "hookgate.yaml", text(yaml.safe_dump(values)) if text else yaml.safe_dump(values))
    return make


def test_version(servers):
    for word in ("version", "--version"):
        done = servers.command(word)
        assert done.returncode == 0 and re.match(rb"hookgate \d+\.\d+", done.stdout)
        assert servers.command(word, "extra").returncode == 2


COMMANDS = ["serve", "reload", "check", "migrate", "verify", "send", "seal", "audit", "stuck", "version"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help(servers, command):
    done = servers.command(command, "--help")
    assert done.returncode == 0 and b"usage" in done.stdout.lower()
    assert servers.command(command, "--no-such-option").returncode == 2


VALUED = {"send": "--count", "verify": "--at", "version": None}


@pytest.mark.parametrize("command", COMMANDS)
def test_wrong_options_are_named(servers, command):
    valued = VALUED.get(command, "--config")
    for argument, complaint in (("--no-such", "there is no option '--no-such'"), (valued, f"{valued} needs a value")):
        if argument is None:
            continue
        done = servers.command(command, argument)
        assert done.returncode == 2
        assert done.stderr.decode().startswith(f"hookgate {command}: {complaint}\n\nusage: hookgate {command}")


def test_no_command_and_unknown_command(servers):
    assert servers.command().returncode == 2
    assert servers.command("nosuch").returncode == 2


# check

def test_check_accepts(servers, config):
    done = servers.command("check", "--config", config())
    assert done.returncode == 0, done.stdout + done.stderr


WRONG = {
    "unknown key": lambda v: v["listen"].update(htps="127.0.0.1:1"),
    "wrong type": lambda v: v["kafka"].update(create_topics="perhaps"),
    "out of range": lambda v: v.update(threads=5000),
    "not a duration": lambda v: v.setdefault("deadlines", {}).update(answer="soon"),
    "over the promise": lambda v: v.setdefault("deadlines", {}).update(answer="10s"),
    "not an address": lambda v: v["listen"].update(https="nowhere"),
    "missing brokers": lambda v: v["kafka"].pop("brokers"),
    "no folder of platforms": lambda v: v["platforms"].update(directory="/nonexistent", enabled={}),
    "one topic for both kinds of held record": lambda v: v.update(hold={"topic": "x", "markers": "x"}),
    "a platform in the holding topic": lambda v: v["platforms"]["enabled"].update(otter={"topic": "webhooks.hold"}),
    "one port for two": lambda v: v["listen"].update(plain="127.0.0.1:7", admin="127.0.0.1:7"),
    "no setting of librdkafka": lambda v: v["kafka"].update(settings={"foo.bar": "1"}),
    "settings that don't fit": lambda v: v["kafka"].update(settings={"max.in.flight": "100"}),
    "no conninfo": lambda v: v["postgres"].update(conninfo="hots=h"),
    "no port": lambda v: v["kafka"].update(brokers="b:x"),
    "a port out of range": lambda v: v.update(public_url="https://h:99999"),
    "unknown platform": lambda v: v["platforms"]["enabled"].update(zzz={}),
    "acks by the back door": lambda v: v["kafka"].update(settings={"acks": "1"}),
    "password in the conninfo": lambda v: v["postgres"].update(conninfo="host=a password=b"),
}


@pytest.mark.parametrize("name", WRONG)
def test_check_refuses_with_a_place(servers, config, name):
    path = config(WRONG[name])
    done = servers.command("check", "--config", path)
    assert done.returncode == 2, done.stdout + done.stderr
    told = (done.stdout + done.stderr).decode()
    assert len(told.splitlines()) == 1 and re.match(re.escape(str(path)) + r":\d+:\d+: ", told), told
    assert servers.command("serve", "--config", path).returncode == 2


def test_check_points_at_the_line_and_suggests(servers, config):
    path = config(text=lambda t: t + "\nlisten_to: 1\n")
    line = path.read_text().splitlines().index("listen_to: 1") + 1
    told = servers.command("check", "--config", path)
    assert f"{path}:{line}:1: ".encode() in told.stdout + told.stderr
    path = config(lambda v: v["listen"].update(certificat="x"))
    told = servers.command("check", "--config", path)
    assert b"certificate" in told.stdout + told.stderr


def test_check_tells_all_that_is_wrong(servers, config):
    def change(values):
        values["threads"] = 5000
        values["kafka"]["create_topics"] = "perhaps"
        values["listen"]["nosuch"] = 1
    told = servers.command("check", "--config", config(change))
    assert len(re.findall(rb":\d+:\d+: ", told.stdout + told.stderr)) >= 3


@pytest.mark.parametrize("text", ["", "- a\n", "a: [", "a: 1\na: 2\n", "\t", "a: &x 1\nb: *x\n", "\xff"])
def test_check_of_files_that_are_none(servers, tmp_path, text):
    path = tmp_path / "broken.yaml"
    path.write_bytes(text.encode("latin-1"))
    done = servers.command("check", "--config", path)
    assert done.returncode == 2 and str(path).encode() in done.stdout + done.stderr


def test_missing_secret_file_is_named(servers, config):
    path = config(lambda v: v["platforms"]["enabled"].update(zoom={"secret_files": ["/nonexistent"]}))
    done = servers.command("check", "--config", path)
    assert done.returncode == 2
    assert re.fullmatch(rb"\S+:\d+:\d+: platforms.enabled.zoom.secret_files\[0\]: /nonexistent: can't be .*\n", done.stderr)


def test_open_secret_file_is_refused(servers, config, tmp_path):
    secret = write(tmp_path / "open-secret", "secret\n", 0o644)
    path = config(lambda v: v["platforms"]["enabled"].update(zoom={"secret_files": [str(secret)]}))
    done = servers.command("check", "--config", path)
    assert done.returncode == 2 and b"open-secret" in done.stdout + done.stderr
    assert re.match(rb"\S+:\d+:\d+: platforms.enabled.zoom.secret_files\[0\]: ", done.stderr), done.stderr


def folders(tmp_path, name, text):
    """The platforms of the repository and one more."""
    directory = tmp_path / "platforms"
    shutil.copytree(os.path.join(ROOT, "platforms"), directory)
    (directory / name).mkdir()
    (directory / name / "platform.yaml").write_text(text)
    return directory


def test_check_reads_folders_that_are_not_enabled(servers, config, tmp_path):
    with open(os.path.join(ROOT, "platforms", "otter", "platform.yaml"), encoding="utf-8") as file:
        text = file.read()
    directory = folders(tmp_path, "acme", text.replace("name: otter", "name: acme", 1))
    done = servers.command("check", "--config", config(), "--platforms", directory)
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line for line in done.stdout.decode().splitlines() if line}
    assert "only checked" in rows["acme"] and "only checked" not in rows["otter"]
    (directory / "acme" / "platform.yaml").write_text(text.replace("name: otter", "name: acme", 1) + "nosuch: 1\n")
    done = servers.command("check", "--config", config(), "--platforms", directory)
    line = text.count("\n") + 1
    assert done.returncode == 2 and f"{directory}/acme/platform.yaml:{line}:1: ".encode() in done.stderr, done.stderr
    # What is enabled is told once, although it is read twice.
    (directory / "otter" / "platform.yaml").write_text(text + "nosuch: 1\n")
    done = servers.command("check", "--config", config(), "--platforms", directory)
    assert done.returncode == 2 and done.stderr.count(b"otter/platform.yaml:") == 1, done.stderr


def test_check_syntax_refuses_a_folder_of_platforms(servers, config, tmp_path):
    done = servers.command("check", "--config", config(), "--syntax", "--platforms", tmp_path)
    assert done.returncode == 2 and b"--platforms" in done.stderr
    assert servers.command("check", "--config", config(), "--syntax").returncode == 0


# migrate

def test_migrate_again_changes_nothing(servers, config):
    done = servers.command("migrate", "--config", config(), "--sql", os.path.join(ROOT, "sql"))
    assert done.returncode == 0, done.stderr


def test_migrate_refuses_an_edited_file(servers, config, tmp_path):
    edited = tmp_path / "sql"
    edited.mkdir()
    for name in os.listdir(os.path.join(ROOT, "sql")):
        with open(os.path.join(ROOT, "sql", name), encoding="utf-8") as file:
            (edited / name).write_text(file.read() + "-- edited\n")
    done = servers.command("migrate", "--config", config(), "--sql", edited)
    assert done.returncode != 0 and done.stderr


# verify

def request(event):
    lines = [f"POST {event.path} HTTP/1.1", "host: localhost", *[f"{k}: {v}" for k, v in event.headers.items()]]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + event.body


def verify(servers, event, secret_file, platform="zoom", *more, data=None):
    done = servers.command("verify", platform, "--secret-file", secret_file, *more, "-", stdin=data or request(event))
    return done.returncode, json.loads(done.stdout) if done.stdout else None


def test_verify_says_what_the_gateway_says(servers, client, zoom):
    event = zoom()
    told = client.post(event).json
    status, verdict = verify(servers, event, servers.secret_file("zoom"), "zoom", "--workspace", "demo")
    assert status == 0 and verdict["authentic"] is True and verdict["platform"] == "zoom"
    assert verdict["event_id"] == told["webhook_event_id"] and verdict["external_id"] == told["external_id"]
    assert verdict["event_type"] == "recording.completed" and verdict["dedup_key"]
    assert verdict["answer"]["status"] == 200 and verdict["answer"]["body"]["status"] == "accepted"
    assert all(check["ok"] for check in verdict["checks"])


def test_verify_refuses(servers, zoom):
    secret = servers.secret_file("zoom")
    status, verdict = verify(servers, zoom(secret="wrong"), secret)
    assert status == 1 and verdict["authentic"] is False and verdict["answer"]["status"] == 401
    assert [check["ok"] for check in verdict["checks"] if check["check"] == "signature"] == [False]
    old = zoom(timestamp=int(time.time()) - 1000)
    assert verify(servers, old, secret)[0] == 1
    assert verify(servers, old, secret, "zoom", "--at", str(int(time.time()) - 1000))[0] == 0
    event = zoom()
    doubled = request(event).replace(b"host: localhost\r\n",
                                     f"x-zm-signature: {event.headers['x-zm-signature']}\r\n".encode())
    assert verify(servers, event, secret, data=doubled)[0] == 1
    assert verify(servers, event, secret, data=b"not a request")[0] == 1


def test_verify_of_what_is_not_there(servers, zoom):
    secret = servers.secret_file("zoom")
    assert verify(servers, zoom(), secret, "nosuch")[0] == 2
    assert servers.command("verify", "zoom", "--secret-file", secret, "/nonexistent").returncode == 2
    assert servers.command("verify", "zoom", "--secret-file", "/nonexistent", "-", stdin=b"x").returncode == 2


def test_verify_several_secrets_and_ignored(servers, zoom, tmp_path):
    several = write(tmp_path / "several", f"older\n{servers.secret('zoom')}\n")
    assert verify(servers, zoom(), several)[0] == 0
    status, verdict = verify(servers, zoom(event="zoomroom.alert"), several)
    assert status == 0 and verdict["answer"]["body"]["status"] == "ignored"


# send

def send(servers, platform, *more, secret=None):
    return servers.command("send", platform, "--url", servers.url, "--secret-file", secret or servers.secret_file(platform),
                           "--ca", servers.ca, "--json", *more, timeout=90)


def test_send_zoom(servers, tmp_path):
    acked = tmp_path / "acked"
    done = send(servers, "zoom", "--account", servers.zoom_account, "--count", "50", "--concurrency", "4", "--acked", acked)
    assert done.returncode == 0, done.stdout + done.stderr
    json.loads(done.stdout)
    names = acked.read_text().split("\n")[:-1]
    assert len(names) == 50 == len(set(names))
    rows = servers.query("SELECT count(*) FROM mcp.webhook_events WHERE external_id = ANY (%s)", names)
    assert rows[0][0] == 50


def test_send_duplicates_and_bad_signatures(servers):
    before = {word: servers.metric("webhook_requests_total", platform="zoom", status=word)
              for word in ("duplicate", "unauthorized")}
    done = send(servers, "zoom", "--account", servers.zoom_account, "--count", "100", "--duplicate-rate", "0.3",
                "--bad-signature-rate", "0.3")
    assert done.stdout, done.stderr
    json.loads(done.stdout)
    for word, count in before.items():
        assert servers.metric("webhook_requests_total", platform="zoom", status=word) > count
