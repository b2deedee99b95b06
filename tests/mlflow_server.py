"""Real servers on loopback for tests: MLflow's, databases, and a door with a lock."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

BOOT_S = 180
QUIET = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


class Server:
    """`mlflow server` on loopback, in a process group of its own; can be stopped and started."""

    def __init__(self, folder: Path, database: str) -> None:
        self.folder, self.port = folder, free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._arguments = [
            *(sys.executable, "-m", "mlflow", "server", "--workers", "1"),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *("--backend-store-uri", database),
            *("--artifacts-destination", str(folder / "artifacts")),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        log = self.folder / "server.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                self._arguments,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | QUIET,
                start_new_session=True,
            )
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"{self.uri}/health", timeout=2).close()
            except OSError:
                assert self._process.poll() is None, log.read_text()
                time.sleep(0.2)
            else:
                return
        self.stop()
        raise AssertionError("the MLflow server did not come up")

    def stop(self) -> None:
        """Kill it and all that it started: the parent alone leaves workers behind."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=30)
            self._process = None


def why_no_postgres() -> str | None:
    """Why PostgreSQL cannot be started here; None if it can."""
    if _postgres_folder() is None:
        return "PostgreSQL is not installed; on Debian `apt-get install postgresql`"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed; it is in the extra `test`"
    return None


class Postgres:
    """A PostgreSQL cluster of its own on loopback."""

    def __init__(self) -> None:
        programs = _postgres_folder()
        assert programs is not None
        self._programs = programs
        # it refuses to run as root, and what it runs as cannot enter pytest's folders
        self._user = "postgres" if os.getuid() == 0 else None
        self.folder = Path(tempfile.mkdtemp(prefix="unlearnbench-postgres-"))
        if self._user:
            shutil.chown(self.folder, self._user)
        self.port = free_port()
        self.uri = f"postgresql+psycopg://tester@127.0.0.1:{self.port}/postgres"
        self._call("initdb", "--auth=trust", "--username=tester", "--no-sync")

    def start(self) -> None:
        options = (
            f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off "
            f"-c unix_socket_directories={self.folder}"
        )
        self._call("pg_ctl", "--wait", f"--log={self.folder}/log", f"--options={options}", "start")

    def stop(self) -> None:
        self._call("pg_ctl", "--wait", "--mode=immediate", "stop")

    def remove(self) -> None:
        if (self.folder / "data" / "postmaster.pid").exists():
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _call(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [self._programs / program, f"--pgdata={self.folder}/data", *arguments],
            user=self._user,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=True,
        )


def why_no_mariadb() -> str | None:
    """Why MariaDB cannot be started here; None if it can."""
    if shutil.which("mariadb-install-db") is None or _mariadbd() is None:
        return "MariaDB is not installed; on Debian `apt-get install mariadb-server`"
    try:
        import pymysql  # noqa: F401
    except ImportError:
        return "PyMySQL is not installed; it is in the extra `test`"
    return None


class MariaDb:
    """A MariaDB server of its own on loopback, which speaks MySQL's protocol."""

    def __init__(self) -> None:
        program = _mariadbd()
        assert program is not None
        self.folder = Path(tempfile.mkdtemp(prefix="unlearnbench-mariadb-"))
        self.port = free_port()
        self.uri = f"mysql+pymysql://root@127.0.0.1:{self.port}/test"
        self._user = ["--user=root"] if os.getuid() == 0 else []
        self._program = program
        self._process: subprocess.Popen[bytes] | None = None
        subprocess.run(
            [
                *("mariadb-install-db", "--no-defaults", f"--datadir={self.folder}/data"),
                *("--auth-root-authentication-method=normal", "--skip-name-resolve", *self._user),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=120,
            check=True,
        )

    def start(self) -> None:
        import pymysql

        with (self.folder / "server.log").open("ab") as output:
            self._process = subprocess.Popen(
                [
                    *(self._program, "--no-defaults", f"--datadir={self.folder}/data"),
                    *(f"--socket={self.folder}/socket", f"--pid-file={self.folder}/pid"),
                    *("--bind-address=127.0.0.1", f"--port={self.port}", *self._user),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + BOOT_S
        while True:
            try:
                with pymysql.connect(host="127.0.0.1", port=self.port, user="root") as link:
                    link.cursor().execute("create database if not exists test")
            except pymysql.err.OperationalError:
                log = (self.folder / "server.log").read_text(errors="replace")
                assert self._process.poll() is None, log
                assert time.monotonic() < deadline, log
                time.sleep(0.2)
            else:
                return

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=30)
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def _mariadbd() -> str | None:
    """Where the server is; Debian keeps it out of the path of ordinary users."""
    return shutil.which("mariadbd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


def _postgres_folder() -> Path | None:
    """Where `initdb` is; Debian keeps it out of the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).parent if on_path else None


@contextmanager
def locked_door(server: str, credentials: str) -> Iterator[tuple[str, list[str]]]:
    """Let through to a server only requests with these credentials; others get 401.

    Args:
        server: Address of the server behind the door.
        credentials: What the header `Authorization` must be.

    Yields:
        The address of the door, and the headers that it was shown so far.
    """
    shown: list[str] = []

    class Door(BaseHTTPRequestHandler):
        def _pass(self) -> None:
            shown.append(self.headers.get("Authorization", ""))
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if shown[-1] != credentials:
                self._answer(401, b"who are you?", "text/plain")
                return
            kept = {name: self.headers[name] for name in ("Content-Type",) if name in self.headers}
            request = urllib.request.Request(
                server + self.path, body or None, kept, method=self.command
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    self._answer(answer.status, answer.read(), answer.headers.get_content_type())
            except urllib.error.HTTPError as error:
                self._answer(error.code, error.read(), error.headers.get_content_type())

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _pass  # noqa: N815

        def _answer(self, status: int, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    door = ThreadingHTTPServer(("127.0.0.1", 0), Door)
    thread = threading.Thread(target=door.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{door.server_port}", shown
    finally:
        door.shutdown()
        door.server_close()
        thread.join()
