"""One set of real servers for a whole run, in a scratch directory, on free ports."""
import json
import os
import re
import shutil
import sys
import tempfile

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import signing  # noqa: E402
from harness import ROOT, Servers, stamp  # noqa: E402

_FAILED = pytest.StashKey[bool]()
# What a sanitizer writes when it has found something.
_COMPLAINT = re.compile(r"ERROR: \w+Sanitizer|runtime error:|SUMMARY: \w+Sanitizer")


def complaints(directory):
    """Lines of sanitizers in any log below the directory."""
    found = []
    for base, _, files in os.walk(directory):
        for name in files:
            if name == "log" or name.startswith("hookgate-"):
                with open(os.path.join(base, name), encoding="utf-8", errors="replace") as file:
                    found += [f"{name}: {line.strip()}" for line in file if _COMPLAINT.search(line)]
    return found


@pytest.fixture(scope="session")
def servers():
    if not os.environ.get("HOOKGATE_BIN"):
        pytest.exit("HOOKGATE_BIN must name the gateway to test; tests/run does that", returncode=2)
    # Short, because a Unix socket's path is.
    directory = tempfile.mkdtemp(prefix="hookgate-e2e-")
    os.chmod(directory, 0o755)
    made = Servers(directory)
    try:
        made.start(instances=3)
        yield made
    finally:
        made.stop()
        found = complaints(directory)
        keep = os.environ.get("HOOKGATE_E2E_KEEP")
        if keep:
            shutil.rmtree(keep, ignore_errors=True)
            shutil.copytree(os.path.join(directory, "logs"), keep)
        shutil.rmtree(directory, ignore_errors=True)
        assert not found, "sanitizers complained:\n" + "\n".join(found)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        item.session.stash[_FAILED] = True
        # Told now as well: the report at the end may be a quarter of an hour away.
        sys.__stderr__.write(f"\n{item.name}: {call.excinfo.exconly()[:2000]}\n")


@pytest.fixture(autouse=True)
def repaired(request):
    """A test that failed may have left a server stopped: that is not the next one's failure too."""
    if request.session.stash.get(_FAILED, False) and "servers" in request.fixturenames:
        request.getfixturevalue("servers").repair()
        request.session.stash[_FAILED] = False


@pytest.fixture
def client(servers):
    made = servers.client()
    yield made
    made.close()


@pytest.fixture
def zoom(servers):
    """Makes a fresh, signed Zoom event; keyword arguments go to its body."""
    def make(account=None, secret=None, timestamp=None, path="/webhooks/zoom", **members):
        body = signing.zoom_body(account or servers.zoom_account, **members)
        return signing.zoom_signed(body, secret or servers.secret("zoom"), timestamp, path)
    return make


@pytest.fixture
def fireflies(servers):
    def make(email=None, secret=None, event="transcript.ready", **how):
        body = signing.fireflies_body(email or servers.fireflies_email, event)
        return signing.fireflies_signed(body, secret or servers.secret("fireflies"), **how)
    return make


@pytest.fixture
def otter(servers):
    def make(token=None, **how):
        return signing.otter(token or servers.secret("otter-endpoint"), **how)
    return make


@pytest.fixture
def audit(servers):
    """Audits what came since the fixture was made."""
    since = stamp()

    def run(*arguments, status=0):
        done = servers.operate("audit", *(arguments or ("--since", since, "--json")))
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout) if b"{" in done.stdout else done
    return run


@pytest.fixture(scope="session")
def root():
    return ROOT
