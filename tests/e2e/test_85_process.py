"""What the gateway's process may do: nothing of root's, no dump of its memory, and it says so when it is started as root."""
import os
import shutil

import pytest

from harness import Gateway

NOBODY = 65534


def status(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def core_limit(pid):
    with open(f"/proc/{pid}/limits", encoding="utf-8") as file:
        return [line.split()[4:6] for line in file if line.startswith("Max core file size")][0]


def give_away(path):
    for base, _, names in os.walk(path):
        for name in [base, *(os.path.join(base, name) for name in names)]:
            os.chown(name, NOBODY, NOBODY)


def as_nobody(servers, name):
    """A gateway's configuration with copies of all that it reads, owned by nobody."""
    made = Gateway(servers, name, drop=["process"])
    mine = os.path.join(made.directory, "mine")
    os.mkdir(mine, 0o700)
    text = open(made.config_path, encoding="utf-8").read()
    for number, path in enumerate([made.config["listen"]["certificate"], made.config["listen"]["key"],
                                   made.config["postgres"]["key_file"], servers.secret_file("zoom"),
                                   servers.secret_file("fireflies")]):
        copy = os.path.join(mine, str(number))
        shutil.copyfile(path, copy)
        os.chmod(copy, 0o600)
        text = text.replace(path, copy)
    shutil.copytree(made.config["platforms"]["directory"], os.path.join(mine, "platforms"))
    text = text.replace(made.config["platforms"]["directory"], os.path.join(mine, "platforms"))
    made.config_path = os.path.join(mine, "hookgate.yaml")
    with open(made.config_path, "w", encoding="utf-8") as file:
        file.write(text)
    shutil.copyfile(servers.binary, os.path.join(mine, "hookgate"))
    os.chmod(os.path.join(mine, "hookgate"), 0o700)
    give_away(mine)
    os.chmod(made.directory, 0o755)
    return made, os.path.join(mine, "hookgate")


def test_no_dump_and_no_new_privileges(servers):
    pid = servers.pid("hookgate-1")
    assert status(pid)["NoNewPrivs"] == "1"
    assert status(pid)["Umask"] == "0077"
    assert core_limit(pid) == ["0", "0"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be refused")
def test_root_is_refused(servers):
    made = Gateway(servers, "root", {"process": {"allow_root": False}})
    done = servers.command("serve", "--config", made.config_path)
    assert done.returncode == 2
    assert b"process.allow_root" in done.stderr and b"user of its own" in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="it takes root to become somebody else")
def test_it_needs_nothing_of_root(servers, zoom):
    """As nobody, without allow_root: it serves, its memory is out of reach, and the metrics read from /proc are there."""
    made, binary = as_nobody(servers, "nobody")
    try:
        made.start(binary=binary, user=NOBODY)
        client = made.client()
        assert client.post(zoom()).status == 200
        client.close()
        pid = made.process.pid
        # Of a process that can't be dumped, /proc/PID/environ and mem are root's.
        assert os.stat(f"/proc/{pid}/environ").st_uid == 0
        assert made.metric("process_open_fds") >= 10
        assert made.metric("process_resident_memory_bytes") > 1 << 20
        assert made.metric("process_threads") > 3
        assert made.metric("process_start_time_seconds") > 1.6e9
        assert made.terminate() == 0
    finally:
        made.end()
