"""One fault under load, from the sender's first event to the audit: what every scenario asserts.

Promises hold through any single fault: each event is taken in the end, no answer takes more than 3 s, every 2xx is
in its topic, once per dedup key, unless an exception that promise 3 of the README names explains the second record."""
import json
import os
import random
import time
from dataclasses import dataclass

from harness import stamp, until
from sender import Sender

LATE = 3.0
DOUBLES = "hookgate_possible_doubles_total"


@dataclass
class Expected:
    """What may differ between scenarios."""
    refusals: int = 0       # first attempts that may be refused with 503 or lose their connection; None: any number
    doubles: str = "none"   # none | counted: as many as DOUBLES grew | crash: the id alone tells
    silent: bool = False    # a gateway may leave requests to nginx's patience instead of answering them
    recovery: float = 5.0   # seconds after the fault's end until nothing is refused any more
    drained: float = 60.0   # seconds after the load until nothing is parked or held
    proof: str = None       # a counter that grows if the fault was felt: else nothing is proven


def seed():
    """HOOKGATE_FAULT_SEED repeats a run."""
    return int(os.environ.get("HOOKGATE_FAULT_SEED") or random.randrange(1 << 32))


def audit(servers, since):
    done = servers.operate("audit", "--since", since, "--json")
    assert done.returncode in (0, 1) and done.stdout.startswith(b"{"), done.stdout + done.stderr
    return json.loads(done.stdout)


def run(servers, fault, expected=Expected(), rate=200, before=1.5, during=4.0, after=7.0, number=None, workers=24):
    """`fault(servers, random)` is a context manager: entered, it breaks something; left, it has mended it."""
    number = seed() if number is None else number
    print(f"seed {number}")
    since, doubles, mark = stamp(), servers.metric(DOUBLES), os.path.getsize(servers.state.log("nginx-access"))
    felt = servers.metric(expected.proof) if expected.proof else 0
    with Sender(servers.url, servers.ca, servers.secret("zoom"), servers.zoom_account, rate, workers, number) as sender:
        time.sleep(before)
        broken = time.monotonic()
        with fault(servers, random.Random(number)):
            time.sleep(during)
        mended = time.monotonic()
        time.sleep(after)
        meetings = sender.stop()
    assert sum(meeting.attempts[0].at < broken for meeting in meetings if meeting.attempts) > 20, "no load before the fault"
    check_answers(meetings, expected, mended)
    check_gateways(servers, meetings, expected, mark)
    told = check_records(servers, meetings, expected, since, doubles)
    print(summary(meetings, told))
    assert not expected.proof or servers.metric(expected.proof) > felt, f"{expected.proof} is as before: this proves nothing"
    return meetings, told


def summary(meetings, told):
    words = {}
    for meeting in meetings:
        for attempt in meeting.attempts:
            words[attempt.word] = words.get(attempt.word, 0) + 1
    slowest = max(attempt.seconds for meeting in meetings for attempt in meeting.attempts)
    return f"{len(meetings)} meetings, answers {words}, slowest {slowest:.2f} s, audit {told}"


def check_answers(meetings, expected, mended):
    attempts = [attempt for meeting in meetings for attempt in meeting.attempts]
    late = [attempt for attempt in attempts if attempt.seconds > LATE]
    assert not late, f"{len(late)} of {len(attempts)} answers took more than {LATE} s: {late[:3]}"
    wrong = [attempt for attempt in attempts if attempt.status not in (0, 200, 503)]
    assert not wrong, wrong[:3]
    lost = [meeting for meeting in meetings if not meeting.taken]
    assert not lost, f"{len(lost)} meetings were never taken: {[m.attempts for m in lost[:3]]}"
    refused = [meeting.attempts[0] for meeting in meetings if meeting.attempts[0].status != 200]
    assert expected.refusals is None or len(refused) <= expected.refusals, \
        f"{len(refused)} of {len(meetings)} meetings were refused at first: {refused[:3]}"
    later = [attempt for attempt in attempts if attempt.at > mended + expected.recovery]
    assert later, "the load ended too early to tell"
    unhealed = [attempt for attempt in later if attempt.status != 200]
    assert not unhealed, f"{len(unhealed)} of {len(later)} refused more than {expected.recovery} s after the end: {unhealed[:3]}"


def check_gateways(servers, meetings, expected, mark):
    """The gateways answer in time by themselves: what nginx says in their place would be in time in any case."""
    answered = sum(attempt.status != 0 for meeting in meetings for attempt in meeting.attempts)

    def passed():
        """What the gateways told for each request; nginx writes its log once a second."""
        with open(servers.state.log("nginx-access"), "rb") as file:
            file.seek(mark)
            lines = file.read().decode().splitlines()
        return [line.split()[7:] for line in lines] if len(lines) >= answered else None

    silent = sum("504" in (word.rstrip(",") for word in words) for words in until("nginx's log", passed, 5))
    assert silent == 0 or expected.silent, f"{silent} of {answered} requests got no answer from their gateway in time"


def check_records(servers, meetings, expected, since, doubles):
    told = until("nothing parked or held", lambda: _drained(servers, since), expected.drained, 1.0)
    assert told["missing"] == 0 and told["stuck"] == 0, told
    answered = {meeting.event_id for meeting in meetings}
    assert told["acknowledged"] >= len(answered), f"{len(answered)} were answered 2xx, but: {told}"
    counts = servers.event_ids()
    missing = answered - counts.keys()
    assert not missing, f"{len(missing)} of {len(answered)} events answered 2xx are not in the topic"
    twice = sum(counts[event_id] - 1 for event_id in answered)
    if expected.doubles == "none":
        assert twice == 0 and told["doubled"] == 0, f"{twice} records came twice: {told}"
    elif expected.doubles == "counted":
        possible = servers.metric(DOUBLES) - doubles
        assert twice <= possible, f"{twice} records came twice, {possible} were counted as possible"
    until("every claim has its receipt", lambda: servers.claims_without_receipt() == 0, 10)
    return told


def _drained(servers, since):
    told = audit(servers, since)
    return told if told["parked"] == 0 and told["held"] == 0 else None
