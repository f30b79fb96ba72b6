"""Random secrets of this checkout, a file each, readable by their owner alone."""
import os
import secrets

from .template import write

# name -> how it is made
_KINDS = {
    "zoom": lambda: secrets.token_urlsafe(16),
    "fireflies": lambda: secrets.token_urlsafe(24),
    "otter-endpoint": lambda: secrets.token_urlsafe(24),
    "fireflies-endpoint": lambda: secrets.token_urlsafe(24),
    "integrations.key": lambda: secrets.token_hex(32),
}


def prepare(state):
    state.make_directory("secrets", mode=0o700)
    for name, make in _KINDS.items():
        if not os.path.exists(path(state, name)):
            write(path(state, name), make() + "\n", mode=0o600)


def path(state, name):
    return state.path("secrets", name)


def read(state, name):
    with open(path(state, name), encoding="ascii") as file:
        return file.read().strip()
