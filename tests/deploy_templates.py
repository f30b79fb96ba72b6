"""The templates of deploy/ can be filled, and nginx accepts its own; run by `tests/run deploy`."""
import os
import shutil
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "deploy"))
sys.dont_write_bytecode = True

from devtool import credentials, gateway, nginx, tls  # noqa: E402
from devtool.progress import Failure  # noqa: E402
from devtool.state import State  # noqa: E402


def main():
    directory = tempfile.mkdtemp(prefix="hookgate-deploy-")
    try:
        state = State(directory)
        state.lock()
        state.instances = 3
        tls.prepare(state)
        credentials.prepare(state)
        for number in (1, 2, 3):
            gateway.configure(state, number)
        nginx.check(state)
    except Failure as failure:
        print(failure)
        return 1
    finally:
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
