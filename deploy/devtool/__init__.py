"""The program behind deploy/dev; tests/e2e starts its servers with the same modules.

state.py      the state directory: ports, processes, .dev/env
process.py    a server process: started, recognised again, stopped
progress.py   the lines with elapsed seconds
template.py   @NAME@ in the templates of deploy/
build.py tls.py credentials.py                 what must exist before anything starts
postgres.py kafka.py gateway.py nginx.py       one server each: prepare, start, wait, stop
demo.py       workspaces of the demonstration, and the proof that events pass
__main__.py   the commands
"""
