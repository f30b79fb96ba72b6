"""A private Postgres with the schema and pgTAP, for pg_prove: up | down. The directory is
HOOKGATE_DEV_DIR, the binary HOOKGATE_BIN, the modules are deploy/dev's."""
import sys

from devtool import credentials, gateway, postgres, tls
from devtool.state import State


def up():
    state = State()
    state.lock()
    tls.prepare(state)
    credentials.prepare(state)
    postgres.start(state)
    gateway.migrate(state)
    postgres.query(state, "CREATE EXTENSION pgtap;")
    with open(state.path("pgenv"), "w", encoding="utf-8") as file:
        file.writelines(f"export {key}='{value}'\n" for key, value in postgres.environment(state).items())


def down():
    postgres.stop(State())


{"up": up, "down": down}[sys.argv[1]]()
