"""One gateway that serves every shipped folder: what `hookgate send` makes of a folder's samples reaches its workspace
and its topic."""
import json
import os
import shutil
import uuid

import pytest

import signing
from harness import ROOT

# Platforms whose bodies name an account; the others' events go to the fallback workspace here.
ACCOUNTS = {"support-rag": "tenant_e2e", "stripe": "acct_e2e", "slack": "T0E2E", "github": "octo-e2e"}
NAMELESS = ["rag-assistant", "loki", "hr-platform", "standard-webhooks"]
COUNT = 30


def secret_file(directory, platform):
    path = os.path.join(directory, f"{platform}-secret")
    shutil.copyfile(os.path.join(ROOT, "platforms", platform, "samples", "secret"), path)
    os.chmod(path, 0o600)
    return path


@pytest.fixture(scope="module")
def everything(servers, tmp_path_factory):
    directory = tmp_path_factory.mktemp("secrets")
    enabled = {}
    for platform in (*ACCOUNTS, *NAMELESS):
        enabled[platform] = {"secret_files": [secret_file(directory, platform)]}
        if platform in NAMELESS:
            enabled[platform]["fallback_workspace"] = "demo"
        servers.query("INSERT INTO core.integrations (integration_id, workspace_id, platform, account_ids) "
                      "VALUES (%s, 'demo', %s, %s)", str(uuid.uuid4()), platform,
                      [ACCOUNTS[platform]] if platform in ACCOUNTS else [])
    with servers.gateway("everything", {"platforms": {"enabled": enabled}}) as gateway:
        gateway.secret_files = {name: values["secret_files"][0] for name, values in enabled.items()}
        yield gateway


@pytest.mark.parametrize("platform", [*ACCOUNTS, *NAMELESS])
def test_events_reach_their_topic(servers, everything, platform, tmp_path):
    account = ["--account", ACCOUNTS[platform]] if platform in ACCOUNTS else []
    acked = tmp_path / "acked"
    done = servers.command("send", platform, "--url", f"{everything.url}/webhooks/{platform}", "--ca", servers.ca,
                           "--secret-file", everything.secret_files[platform], "--count", COUNT, "--json",
                           "--acked", acked, *account)
    assert done.returncode == 0, done.stdout + done.stderr
    names = acked.read_text().split("\n")[:-1]
    assert len(names) == COUNT == len(set(names))
    rows = servers.query("SELECT event_id, event_type FROM mcp.webhook_events WHERE platform = %s AND "
                         "workspace_id = 'demo' AND status = 'published' AND external_id = ANY (%s)", platform, names)
    assert len(rows) == COUNT and len({row["event_type"] for row in rows}) >= 2
    counts = servers.event_ids(f"webhooks.{platform}")
    assert all(counts[str(row["event_id"])] == 1 for row in rows)


def test_a_replay_to_github_under_another_type_is_a_duplicate(servers, everything):
    """Neither the type nor the delivery's id is signed."""
    with open(everything.secret_files["github"], encoding="utf-8") as file:
        secret = file.read().strip()
    body = json.dumps({"action": "created", "starred_at": uuid.uuid4().hex, "repository": {"id": 1},
                       "organization": {"login": ACCOUNTS["github"]}}).encode()
    client = everything.client()
    told = []
    for event in ("star", "star", "repository", "anything_else"):
        answer = client.post(signing.Event("github", "/webhooks/github", body, {
            "content-type": "application/json", "x-github-event": event, "x-github-delivery": str(uuid.uuid4()),
            "x-hub-signature-256": "sha256=" + signing.digest(secret, body)}))
        assert answer.status == 200, answer.raw
        told.append(answer.json)
    client.close()
    assert [each["status"] for each in told] == ["accepted"] + ["duplicate"] * 3
    assert len({each["webhook_event_id"] for each in told}) == 1
    assert servers.event_ids("webhooks.github")[told[0]["webhook_event_id"]] == 1
