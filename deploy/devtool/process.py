"""A server process: started as leader of its own session, recognised by process id *and* start time (a
process id alone may belong to somebody else by now), stopped by process id. What a killed server left
behind is found by the session and by its program."""
import os
import resource
import shutil
import signal
import subprocess
import time

from .progress import Failure

NOFILE = 65536


def raise_limits():
    """Servers inherit as many open files as this user may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = NOFILE if hard == resource.RLIM_INFINITY else min(hard, NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _stat(pid):
    """State letter, session and start time of a process; None when there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as file:
            fields = file.read().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return fields[0], int(fields[3]), int(fields[19])


def _boot():
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read().strip()


def identity(pid):
    """What is kept of a process, to know it again."""
    stat = _stat(pid)
    if stat is None or stat[0] in "ZX":
        return None
    return {"pid": pid, "start": stat[2], "boot": _boot()}


def alive(record):
    if not record:
        return False
    found = identity(record["pid"])
    return found is not None and all(record[key] == value for key, value in found.items())


def runs(pid, program):
    """Whether the process executes this file, or what the file was before it was replaced."""
    try:
        return os.readlink(f"/proc/{pid}/exe").removesuffix(" (deleted)") == program
    except PermissionError:  # another user's, and we lack the right to look; its name is public
        try:
            with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as file:
                return file.read().rstrip("\n") == os.path.basename(program)[:15]
        except OSError:
            return False
    except OSError:
        return False


def everything():
    """Process ids of all that is not a zombie, with their sessions."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            stat = _stat(int(name))
            if stat is not None and stat[0] not in "ZX":
                yield int(name), stat


def orphans(record):
    """What a server that is dead left running: its session, its program, started after it. The kernel gives
    nobody else the session's number while somebody is in it."""
    if not record or "program" not in record or record["boot"] != _boot() or alive(record):
        return []
    return [pid for pid, (_, session, start) in everything()
            if session == record["pid"] != pid and start >= record["start"] and runs(pid, record["program"])]


def end(find, patience=0.0, seconds=5.0):
    """Ends the processes that `find` returns: waits until they end by themselves, asks, insists. Returns how
    many there were."""
    count = len(find())
    for number, wait in ((None, patience), (signal.SIGTERM, seconds), (signal.SIGKILL, seconds)):
        found = find()
        if not found:
            break
        for pid in found if number else []:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass
        deadline = time.monotonic() + wait
        while find() and time.monotonic() < deadline:
            time.sleep(0.05)
    if find():
        raise Failure(f"processes {find()} do not end")
    return count


def children(pid):
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            return [int(child) for child in file.read().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def family(pid):
    """The process and its children: a server such as Postgres is all of them."""
    return [pid, *children(pid)]


def title(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def resident_mib(pid):
    try:
        with open(f"/proc/{pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") // (1 << 20)
    except (FileNotFoundError, ProcessLookupError):
        return 0


def start(command, log, cwd, program=None):
    """Starts a server that outlives us; both its outputs go to the end of `log`. `program` is the file that
    it executes in the end, where the command's first word is a wrapper of it."""
    with open(log, "ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd,
                                 start_new_session=True, close_fds=True)
    record = identity(child.pid)
    # Nothing waits for it here; without this Python would complain that it still runs.
    child.returncode = 0
    if record is None:
        raise Failure(f"{command[0]} ended at once; see {log}")
    program = program or shutil.which(command[0])
    return {**record, "program": os.path.realpath(program)}


def _reap(pid):
    """Takes the exit status when the process is our own child, so that no zombie stays."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass


def stop(record, number=signal.SIGTERM, seconds=20.0):
    """Asks, waits, and after `seconds` insists. True when asking was enough."""
    if not alive(record):
        return True
    pid = record["pid"]
    asked = True
    try:
        os.kill(pid, number)
        end = time.monotonic() + seconds
        while alive(record) and time.monotonic() < end:
            _reap(pid)
            time.sleep(0.02)
        if alive(record):
            asked = False
            os.kill(pid, signal.SIGKILL)
            while alive(record):
                _reap(pid)
                time.sleep(0.02)
    except ProcessLookupError:
        pass
    # Its other threads, or whoever inherited it, may take a moment; until it is collected `kill -0` still finds it.
    end = time.monotonic() + 3
    while (found := _stat(pid)) is not None and found[2:] == (record["start"],) and time.monotonic() < end:
        _reap(pid)
        time.sleep(0.02)
    return asked


def log_tail(path, lines=15):
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - 16384))
            return "\n".join(file.read().decode(errors="replace").splitlines()[-lines:])
    except FileNotFoundError:
        return ""
