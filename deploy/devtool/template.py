"""Templates: @NAME@ is replaced; a name that nobody gave a value is an error."""
import os
import re

from .progress import Failure


def fill(text, values):
    def value(match):
        if match.group(1) not in values:
            raise Failure(f"template: nothing known as @{match.group(1)}@")
        return str(values[match.group(1)])

    return re.sub(r"@([A-Z][A-Z0-9_]*)@", value, text)


def write(path, text, mode=0o644):
    """Replaces the file whole, so that no reader sees half of it. Returns whether it changed."""
    try:
        with open(path, encoding="utf-8") as old:
            if old.read() == text:
                return False
    except FileNotFoundError:
        pass
    temporary = f"{path}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "w", encoding="utf-8") as new:
        new.write(text)
    os.replace(temporary, path)
    return True
