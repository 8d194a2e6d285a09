"""Starts `raskrank serve` as a user does, and talks to it over a plain socket where a client library would hide too much."""

import http.client
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

DEADLINE = 60
QUERY = "Hvem kan programmere i Python?"
DOCUMENTS = [
    "Sykepleier med nattevakter på sykehus.",
    "Utvikler med åtte års erfaring i Python og PostgreSQL.",
    "Dyrepasser ved et reptilsenter, med ansvar for pytonslanger.",
]
BEST = 1


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Server:
    url: str
    process: "subprocess.Popen[str]"

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        """body: bytes as they are, anything else as JSON."""
        connection = http.client.HTTPConnection(*self.address, timeout=DEADLINE)
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        try:
            connection.request(method, path, data, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        finally:
            connection.close()

    def post(self, path: str, body: object, **headers: str) -> Answer:
        return self.ask("POST", path, body, {name.replace("_", "-"): value for name, value in headers.items()})

    def counted(self, name: str) -> float:
        """A line of /metrics, by its name and labels."""
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        (value,) = [float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name]
        return value

    def outcome(self, name: str) -> float:
        return self.counted(f'raskrank_requests_total{{outcome="{name}"}}')


@contextmanager
def serving(*arguments: str, ends: bool = True) -> Iterator[Server]:
    """A server that is ready, on a free port. ends: it must end with 0 after SIGTERM, and say nothing on standard error."""
    process = subprocess.Popen(
        [sys.executable, "-m", "raskrank", "serve", "--port", "0", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise AssertionError(process.communicate(timeout=DEADLINE)[1])
        yield Server(json.loads(line)["url"], process)
        if ends:
            process.send_signal(signal.SIGTERM)
            _, errors = process.communicate(timeout=DEADLINE)
            assert (process.returncode, errors) == (0, "")
    finally:
        process.kill()
        process.communicate()
