"""One line per step, with the seconds since the start, so that a slow step can be seen."""
import sys
import threading
import time

_started = time.monotonic()
_lock = threading.Lock()


class Failure(Exception):
    """Something that the person at the keyboard has to know; printed without a trace."""


def say(text):
    with _lock:
        print(f"[{time.monotonic() - _started:6.1f} s] {text}", file=sys.stderr, flush=True)


def wait_for(what, ready, seconds, alive=None, interval=0.05):
    """Calls `ready` until it returns something true, which is returned. `alive` ends the wait early."""
    end = time.monotonic() + seconds
    while True:
        value = ready()
        if value:
            return value
        if alive is not None and not alive():
            raise Failure(f"{what}: the process ended while it was awaited")
        if time.monotonic() > end:
            raise Failure(f"{what}: not ready after {seconds:g} s")
        time.sleep(interval)
