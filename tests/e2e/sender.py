"""A platform as the gateway meets it: signs each attempt anew, hangs up after 3 s, repeats what got a 5xx or
no answer (Zoom's rule: never a 4xx) on a schedule that is shortened from minutes to seconds, and remembers
every answer. Its own threads, its own connections; the seed makes a run repeatable."""
import heapq
import json
import random
import threading
import time
from dataclasses import dataclass, field

from client import Client
from signing import zoom_body, zoom_signed

SCHEDULE = (0.7, 2.0, 4.0, 8.0)  # after the attempt before


@dataclass
class Attempt:
    at: float        # monotonic
    seconds: float
    status: int      # 0: no answer
    word: str        # accepted, duplicate, an error's code, or what broke


@dataclass
class Meeting:
    """One event and what came of it."""
    body: bytes
    attempts: list = field(default_factory=list)
    event_id: str = None

    @property
    def taken(self):
        return self.event_id is not None


class Sender:
    def __init__(self, url, ca, secret, account, rate, workers=24, seed=0, duplicates=0.05):
        self.url, self.ca, self.secret, self.account = url, ca, secret, account
        self.rate, self.duplicates = rate, duplicates
        self.random = random.Random(seed)
        self.meetings = []
        self._due = []  # heap of (when, number, meeting)
        self._number = 0
        self._lock = threading.Condition()
        self._sending, self._ended = True, False
        self._open = 0  # meetings that may still be sent again
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(workers)]
        self._clock = threading.Thread(target=self._feed, daemon=True)

    def __enter__(self):
        for thread in [*self._threads, self._clock]:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop(patience=0)

    def stop(self, patience=30):
        """No new meetings; waits until each is taken or given up, then returns all of them."""
        self._sending = False
        self._clock.join()
        end = time.monotonic() + patience
        with self._lock:
            while self._open > 0 and time.monotonic() < end:
                self._lock.wait(0.2)
            self._ended = True
            self._lock.notify_all()
        for thread in self._threads:
            thread.join()
        return self.meetings

    def _push(self, when, meeting):
        heapq.heappush(self._due, (when, self._number, meeting))
        self._number += 1
        self._lock.notify()

    def _feed(self):
        due = time.monotonic()
        while self._sending:
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(min(pause, 0.2))
                continue
            due = max(due + 1 / self.rate, time.monotonic() - 0.5)  # after a stall: a few, not all that was missed
            meeting = Meeting(zoom_body(self.account, "meeting.started"))
            with self._lock:
                self.meetings.append(meeting)
                self._open += 1
                self._push(time.monotonic(), meeting)

    def _next(self):
        with self._lock:
            while not self._ended:
                if not self._due:
                    self._lock.wait(0.2)
                    continue
                when = self._due[0][0]
                now = time.monotonic()
                if when <= now:
                    return heapq.heappop(self._due)[2]
                self._lock.wait(min(when - now, 0.2))
        return None

    def _work(self):
        client = Client(self.url, self.ca, 3.2)
        while (meeting := self._next()) is not None:
            self._attempt(client, meeting)
        client.close()

    def _attempt(self, client, meeting):
        at = time.monotonic()
        try:
            answer = client.post(zoom_signed(meeting.body, self.secret))
        except Exception as broken:  # whatever broke, there was no answer
            client.close()
            attempt = Attempt(at, time.monotonic() - at, 0, type(broken).__name__)
        else:
            told = json.loads(answer.raw)
            attempt = Attempt(at, answer.seconds, answer.status,
                              told.get("status") or told.get("error", {}).get("code"))
            if answer.status == 200 and told.get("webhook_event_id"):
                meeting.event_id = told["webhook_event_id"]
        self._settle(meeting, attempt)

    def _settle(self, meeting, attempt):
        with self._lock:
            meeting.attempts.append(attempt)
            retry = attempt.status == 0 or attempt.status >= 500
            copy = attempt.status == 200 and len(meeting.attempts) == 1 and self.random.random() < self.duplicates
            if copy or (retry and len(meeting.attempts) <= len(SCHEDULE)):
                pause = 0.1 if copy else SCHEDULE[len(meeting.attempts) - 1]
                self._push(attempt.at + attempt.seconds + pause, meeting)
            else:
                self._open -= 1
                self._lock.notify_all()
