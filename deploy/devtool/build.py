"""The gateway's binary: built by meson, or named by HOOKGATE_BIN."""
import os
import subprocess

from .progress import Failure, say


def binary(state):
    return os.environ.get("HOOKGATE_BIN") or state.path("build", "hookgate")


def build(state):
    if os.environ.get("HOOKGATE_BIN"):
        return
    directory = state.path("build")
    log = state.log("build")
    steps = [["ninja", "-C", directory, "hookgate"]]
    if not os.path.exists(os.path.join(directory, "build.ninja")):
        # Warnings stop tests/run, not somebody who wants to see the thing run.
        steps.insert(0, ["meson", "setup", directory, state.root, "-Dwerror=false", "-Dtests=false"])
    with open(log, "wb") as output:
        for step in steps:
            if subprocess.run(step, stdout=output, stderr=subprocess.STDOUT, check=False).returncode != 0:
                with open(log, encoding="utf-8", errors="replace") as text:
                    raise Failure(f"{' '.join(step)} failed; the end of {log}:\n{text.read()[-3000:]}")
    say("gateway built")
