"""A constant-rate sender that remembers every answer. Events are numbered; each worker has its own
connection and sends at the moments that are due, whatever the answers before took."""
import threading
import time
from dataclasses import dataclass

from client import Client
from signing import zoom_body, zoom_signed


@dataclass
class Sent:
    at: float             # monotonic, when it was sent
    seconds: float        # until the answer, or until the connection failed
    status: int           # 0: no answer, the connection failed
    retry_after: int      # None: not told
    event_id: str         # None unless 200
    word: str             # accepted, duplicate … or the error's code


class Load:
    def __init__(self, url, ca, secret, account, rate, workers=32, timeout=8, event="meeting.started", again=False):
        self._arguments = (url, ca, timeout)
        # One account for all events, or a function that says whose each one is.
        self._account = account if callable(account) else lambda: account
        self._secret, self._event = secret, event
        self._rate, self._workers = rate, workers
        self._again = again  # repeat once on a connection that was closed before an answer began
        self._stop = threading.Event()
        self._results = [[] for _ in range(workers)]
        self._threads = [threading.Thread(target=self._work, args=(n,), daemon=True) for n in range(workers)]

    def __enter__(self):
        self._start = time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        """Ends sending, waits for the answers that are due, and returns them all."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.results

    @property
    def results(self):
        return [sent for worker in self._results for sent in list(worker)]

    def _work(self, number):
        url, ca, timeout = self._arguments
        step = self._workers / self._rate
        due = self._start + step * number / self._workers
        client = Client(url, ca, timeout)
        while not self._stop.is_set():
            pause = due - time.monotonic()
            if pause > 0 and self._stop.wait(pause):
                break
            # After a stall: catch up with a few, not with all that was missed.
            due = max(due + step, time.monotonic() - 0.5)
            event = zoom_signed(zoom_body(self._account(), self._event), self._secret)
            self._results[number].append(self._send(client, event))
        client.close()

    def _send(self, client, event, again=None):
        at = time.monotonic()
        try:
            answer = client.post(event)
        except Exception:  # whatever broke, there was no answer
            client.close()
            if self._again if again is None else again:
                return self._send(client, event, again=False)
            return Sent(at, time.monotonic() - at, 0, None, None, "no answer")
        told = answer.json
        word = told.get("status") or told.get("error", {}).get("code")
        return Sent(at, answer.seconds, answer.status, answer.retry_after, told.get("webhook_event_id"), word)
