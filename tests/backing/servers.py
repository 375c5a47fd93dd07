"""PostgreSQL and Redis, each in a directory of its own on a free port of 127.0.0.1, with a password and TLS.

A server is a child of this process and ends with it, even if this process is killed. Run by root,
it runs as a user without rights, because PostgreSQL refuses root.
"""

import contextlib
import ctypes
import os
import pathlib
import pwd
import random
import secrets
import shutil
import signal
import socket
import subprocess
import time

import packages
from packages import BackingError

START_TIMEOUT = 60
STOP_TIMEOUT = 30
# Below those that the system gives to connections, which could take that of a server meanwhile.
PORTS = range(20_000, 32_000)
# Who servers run as when root starts them: the first that exists.
USERS = ("postgres", "redis", "nobody")
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def unprivileged():
    """The user to run servers as, or None for who we are."""
    if os.geteuid() != 0:
        return None
    for name in USERS:
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise BackingError(f"root cannot run PostgreSQL, and there is none of the users {', '.join(USERS)}")


def free_port():
    for port in random.sample(PORTS, 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise BackingError(f"no port is free between {PORTS.start} and {PORTS.stop}")


class Server:
    """One server: its directory, its port, its password, and its process while it runs."""

    name = "server"
    # What ends it in good order.
    stop_signal = signal.SIGTERM

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(mode=0o700)
        self.user = unprivileged()
        if self.user:
            os.chown(self.directory, self.user.pw_uid, self.user.pw_gid)
        self.log = self.directory / "log"
        self.password = secrets.token_urlsafe(18)
        self.port = 0
        self.process = None
        self.make()

    def make(self):
        """Prepares the directory, once."""

    def draw_ports(self):
        self.port = free_port()

    def argv(self):
        """What starts the server on `self.port`."""
        raise NotImplementedError

    def ready(self):
        """Whether it takes connections."""
        raise NotImplementedError

    def identity(self):
        if not self.user:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}

    def run(self, argv, stdin=""):
        """Runs a program of the server to its end, as the server's user."""
        done = subprocess.run([str(part) for part in argv], input=stdin, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, errors="replace", cwd=self.directory,
                              timeout=START_TIMEOUT, **self.identity())
        if done.returncode != 0:
            raise BackingError(f"{argv[0]} failed:\n{done.stdout[-2000:]}")

    def start(self):
        """Starts it and waits until it is ready: on the port it had before, or on a free one."""
        again = self.port != 0
        for attempt in range(5):
            # What a killed one left behind goes within moments; a port may be taken by another.
            time.sleep(attempt / 4)
            if not again:
                self.draw_ports()
            # In a session of its own: Ctrl-C is for the tests, which may still need it.
            with self.log.open("ab") as log:
                self.process = subprocess.Popen(
                    [str(part) for part in self.argv()], stdin=subprocess.DEVNULL, stdout=log,
                    stderr=subprocess.STDOUT, cwd=self.directory, start_new_session=True,
                    preexec_fn=lambda: LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL), **self.identity())
            if self.wait_ready():
                return
        self.kill()
        raise BackingError(f"{self.name} does not start:\n{self.tail()}")

    def wait_ready(self):
        """Whether it came up; not if it ended, as when another took the port."""
        end = time.monotonic() + START_TIMEOUT
        while time.monotonic() < end and self.process.poll() is None:
            if self.ready():
                return True
            time.sleep(0.02)
        return False

    def tail(self):
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else ""

    def stop(self):
        """Ends it in good order, or at once if it does not."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(self.stop_signal)
        try:
            self.process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self):
        """Ends it as the loss of its machine would."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def pause(self):
        """Stops it where it is: it keeps its connections and answers nothing."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self):
        """Lets it go on after `pause`."""
        self.process.send_signal(signal.SIGCONT)


class Certificates:
    """An authority made for this run, and the certificate of `localhost` and 127.0.0.1 that it signed."""

    def __init__(self, directory):
        self.authority = directory / "authority.crt"
        self.certificate = directory / "server.crt"
        self.key = directory / "server.key"
        if not shutil.which("openssl"):
            packages.install(["openssl"])
        key, request, extensions = directory / "authority.key", directory / "request", directory / "extensions"
        extensions.write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=CA:FALSE\n"
                              "extendedKeyUsage=serverAuth\n")
        new = ["openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout"]
        self.run([*new, key, "-x509", "-days", "2", "-subj", "/CN=machina tests", "-out", self.authority])
        self.run([*new, self.key, "-subj", "/CN=localhost", "-out", request])
        self.run(["openssl", "x509", "-req", "-in", request, "-CA", self.authority, "-CAkey", key, "-CAcreateserial",
                  "-days", "2", "-extfile", extensions, "-out", self.certificate])

    @staticmethod
    def run(argv):
        done = subprocess.run([str(part) for part in argv], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60)
        if done.returncode != 0:
            raise BackingError(f"{' '.join(map(str, argv))} failed: {done.stderr.strip()}")

    def copy_to(self, server):
        """Gives a server its own copies, because a key must be its reader's."""
        for source in (self.certificate, self.key):
            copy = server.directory / source.name
            shutil.copy(source, copy)
            copy.chmod(0o600)
            if server.user:
                os.chown(copy, server.user.pw_uid, server.user.pw_gid)


class Postgres(Server):
    """A PostgreSQL cluster: the role and the database `machina`, passwords and TLS as in earnest."""

    name = "PostgreSQL"
    # Ends it without waiting for its clients.
    stop_signal = signal.SIGINT

    def __init__(self, directory, certificates, fsync=True):
        self.certificates = certificates
        self.fsync = fsync
        self.programs = packages.postgres()
        super().__init__(directory)

    @property
    def data(self):
        return self.directory / "data"

    def make(self):
        self.certificates.copy_to(self)
        password = self.directory / "password"
        password.write_text(self.password + "\n")
        if self.user:
            os.chown(password, self.user.pw_uid, self.user.pw_gid)
        # Written out at the end of it, not file by file: nothing is worth keeping before that.
        self.run([self.programs / "initdb", "--no-sync", "--pgdata", self.data, "--username", "machina",
                  "--pwfile", password, "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8"])
        self.run([self.programs / "postgres", "--single", "-D", self.data, "postgres"],
                 stdin="CREATE DATABASE machina\n")

    def argv(self):
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": self.directory,
            "max_connections": 300, "fsync": "on" if self.fsync else "off",
            "ssl": "on", "ssl_cert_file": self.directory / "server.crt", "ssl_key_file": self.directory / "server.key",
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self.programs / "postgres", "-D", self.data, *options]

    def ready(self):
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        # The file of one that was killed says that it is ready, too.
        return len(lines) > 7 and lines[0] == str(self.process.pid) and lines[7].strip() == "ready"

    def variables(self):
        """What tests find in their environment."""
        return {"MACHINA_TEST_POSTGRES_URL": f"postgres://machina:{self.password}@127.0.0.1:{self.port}/machina",
                "MACHINA_TEST_POSTGRES_CA": str(self.certificates.authority)}


class Redis(Server):
    """A Redis that keeps nothing on disk, with one port in the clear and one for TLS."""

    name = "Redis"

    def __init__(self, directory, certificates):
        self.certificates = certificates
        self.program = packages.redis()
        self.tls_port = 0
        super().__init__(directory)

    def make(self):
        self.certificates.copy_to(self)
        (self.directory / "redis-server").symlink_to(self.program)

    def draw_ports(self):
        super().draw_ports()
        self.tls_port = free_port()

    def argv(self):
        configuration = self.directory / "redis.conf"
        # In a file, so that the password is in no list of processes.
        configuration.write_text("\n".join([
            "bind 127.0.0.1", f"port {self.port}", f"tls-port {self.tls_port}", f"requirepass {self.password}",
            f"dir {self.directory}", 'save ""', "appendonly no", "tls-auth-clients no",
            f"tls-cert-file {self.directory}/server.crt", f"tls-key-file {self.directory}/server.key",
            f"tls-ca-cert-file {self.directory}/server.crt", ""]))
        configuration.chmod(0o600)
        if self.user:
            os.chown(configuration, self.user.pw_uid, self.user.pw_gid)
        return [self.directory / "redis-server", configuration]

    def ready(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                connection.sendall(f"AUTH {self.password}\r\n".encode())
                return connection.recv(64).startswith(b"+OK")
        except OSError:
            return False

    def variables(self):
        """What tests find in their environment."""
        return {"MACHINA_TEST_REDIS_URL": f"redis://default:{self.password}@127.0.0.1:{self.port}/0",
                "MACHINA_TEST_REDIS_TLS_URL": f"rediss://default:{self.password}@localhost:{self.tls_port}/0",
                "MACHINA_TEST_REDIS_CA": str(self.certificates.authority)}
