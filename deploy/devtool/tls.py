"""A certificate authority of this checkout and one server certificate for 127.0.0.1 and localhost."""
import os
import subprocess

from .progress import Failure, say
from .template import write

_SERVER = """\
basicConstraints=critical,CA:false
keyUsage=critical,digitalSignature
extendedKeyUsage=serverAuth
subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1
"""


def prepare(state):
    directory = state.make_directory("tls")
    ca, ca_key = os.path.join(directory, "ca.pem"), os.path.join(directory, "ca.key")
    server, server_key = os.path.join(directory, "server.pem"), os.path.join(directory, "server.key")
    if os.path.exists(server):
        return

    def openssl(*arguments):
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failure(f"openssl {arguments[0]}: {done.stderr.strip()}")

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    request = os.path.join(directory, "server.csr")
    extensions = os.path.join(directory, "server.ext")
    write(extensions, _SERVER)
    openssl("req", "-x509", *key, "-keyout", ca_key, "-out", ca, "-days", "3650", "-subj", "/CN=hookgate dev CA",
            "-addext", "basicConstraints=critical,CA:true", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", *key, "-keyout", server_key, "-out", request, "-subj", "/CN=localhost")
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", "825",
            "-extfile", extensions, "-out", server + ".new")
    os.chmod(ca_key, 0o600)
    os.chmod(server_key, 0o600)
    os.replace(server + ".new", server)
    say("certificate authority and server certificate made")
