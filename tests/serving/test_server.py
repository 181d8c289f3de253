"""`residua serve` as a process: it starts, warns, and finishes what it has started."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from references.command_line import residua
from serving.conftest import png

from residua.api.deployment import serve
from residua.errors import ResiduaError
from residua.serving.server import is_local


@contextlib.contextmanager
def process(*words: str) -> Iterator[tuple[subprocess.Popen[str], list[str], int]]:
    """The process, the lines that it printed until it listens, and its port."""
    command = [sys.executable, "-m", "residua", "serve", *words, "--port", "0"]
    environment = {**os.environ, "RESIDUA_TOKEN": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stderr is not None
            lines: list[str] = []
            while not (lines and lines[-1].startswith("serving ")):
                lines.append(server.stderr.readline())
                assert lines[-1], lines
            match = re.search(r":(\d+) ", lines[-1])
            assert match
            yield server, lines, int(match[1])
        finally:
            server.terminate()  # with its workers
            server.wait(20)


@pytest.mark.slow
def test_a_process_warns_of_its_host_and_finishes_a_request_on_sigterm(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "net.safetensors", 5)
    content = png(16, 16)
    head = (
        "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    with process(str(weights), "--host", "0.0.0.0") as (server, lines, port):
        warning = "warning: 0.0.0.0: every machine that reaches it can send requests; set --token"
        assert any(line.startswith(warning) for line in lines)
        assert lines[-1] == f"serving net at http://0.0.0.0:{port} (Ctrl-C to stop)\n"
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(head.encode() + content[:20])
            # the server has begun to read this request once it answers a later one
            with socket.create_connection(("127.0.0.1", port)) as other:
                other.sendall(
                    b"GET /v2/health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
                )
                assert b"200 OK" in b"".join(iter(lambda: other.recv(4096), b""))
            server.send_signal(signal.SIGTERM)
            while not refuses_connections(port):
                time.sleep(0.01)
            client.sendall(content[20:])
            answer = b"".join(iter(lambda: client.recv(4096), b"")).decode()
        assert "200 OK" in answer
        (row,) = json.loads(answer.partition("\r\n\r\n")[2])
        assert len(row["top"]) == 3
        assert server.wait(10) in (0, -signal.SIGTERM)
        assert server.stderr is not None
        assert "Traceback" not in server.stderr.read()


@pytest.mark.slow
def test_a_killed_worker_comes_back(write_weights: Callable[..., Path], tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "net.safetensors", 5)

    def ask(port: int) -> list[str]:
        head = {"Content-Type": "image/png"}
        address = f"http://127.0.0.1:{port}/predict"
        (row,) = httpx.post(address, content=png(16, 16), headers=head, timeout=60).json()
        return [entry["class"] for entry in row["top"]]

    with process(str(weights), "--workers", "1") as (server, _, port):
        before = ask(port)
        (worker,) = workers_of(server.pid)
        os.kill(worker, signal.SIGKILL)
        while worker in workers_of(server.pid):
            time.sleep(0.1)
        assert ask(port) == before
        assert workers_of(server.pid) != [worker]
        server.send_signal(signal.SIGTERM)
        assert server.wait(20) == 0


def workers_of(parent: int) -> list[int]:
    """Processes of multiprocessing below a process, without its resource tracker."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text("utf-8").split()
    lines = {int(child): Path(f"/proc/{child}/cmdline").read_bytes() for child in children}
    return [child for child, line in lines.items() if b"spawn_main" in line]


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionError:
        return True
    return False


def test_an_address_in_use_is_an_error(write_weights: Callable[..., Path], tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "net.safetensors", 5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = residua("serve", str(weights), "--port", str(port))
    assert result.status == 1
    assert f"http://127.0.0.1:{port}: cannot be used: Address already in use" in result.stderr


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.5", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_a_local_host_is_one_that_only_this_machine_reaches(host: str, local: bool) -> None:
    assert is_local(host) == local


def test_a_port_that_cannot_exist_is_refused_in_one_sentence(
    write_weights: Callable[..., Path], tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "net.safetensors", 2)
    with pytest.raises(ResiduaError, match=r"port must be 0-65535\. Choose another"):
        serve(weights, port=70000)
