"""`residua serve` beyond its capacity, and its throughput beside that of LitServe.

    python benchmarks/serving_load.py RUN IMAGES [--minutes 10] [--rounds 5]

Load: twice as many clients as the server accepts requests, each with the next image as soon as it
has its answer. Every answer is compared with `residua.predict`. Throughput: 16 clients, images as
base64 in JSON, both servers with the same model, engine, batch size and wait, in turn. Needs
`pip install litserve`; --rounds 0 does without.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import datetime
import itertools
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import residua
from residua.serving.limits import Limits
from residua.system.device import environment

LARGEST = 1e-3  # difference of a probability: engines may round differently
CLIENTS, SECONDS = 16, 8.0  # of a round of throughput
Post = Callable[[int], Awaitable[None]]


@dataclass
class Tally:
    """What the clients saw."""

    seconds: list[float] = field(default_factory=list)  # of answers with status 200
    refused: list[float] = field(default_factory=list)  # of 429 and 503 with Retry-After
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    difference: float = 0.0


async def request(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, path: str, kind: str, body: bytes
) -> tuple[int, dict[str, str], bytes]:
    """One HTTP/1.1 request on an open connection: status, headers, body."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    content = await reader.readexactly(int(headers["content-length"]))
    return int(first.split()[1]), headers, content


async def load(
    port: int,
    path: str,
    kind: str,
    bodies: list[bytes],
    clients: int,
    seconds: float,
    check: Callable[[int, bytes, Tally], None],
) -> Tally:
    """Send the bodies in turn from `clients` connections for some seconds."""
    tally, numbers, end = Tally(), itertools.count(), time.monotonic() + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < end:
            number, began = next(numbers) % len(bodies), time.monotonic()
            try:
                status, headers, content = await request(reader, writer, path, kind, bodies[number])
            except (ConnectionError, asyncio.IncompleteReadError):  # it was idle for 5 s
                tally.statuses["connection lost"] += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            took = time.monotonic() - began
            tally.statuses[str(status)] += 1
            if status == 200:
                tally.seconds.append(took)
                check(number, content, tally)
            elif status in (429, 503) and "retry-after" in headers:
                tally.refused.append(took)
                await asyncio.sleep(0.25 * int(headers["retry-after"]))  # impatient on purpose
            else:
                tally.wrong.append(f"status {status}: {content[:200]!r}")
            if headers.get("connection") == "close":
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return tally


@contextlib.contextmanager
def serving(run: str, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`residua serve` on a free port: its process and port."""
    command = [sys.executable, "-m", "residua", "serve", run, "--port", "0", *words]
    # a session of its own, as LitServe's: Linux shares processors between sessions (autogroup)
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        assert server.stderr is not None
        try:
            while not (match := re.search(r"^serving .*:(\d+) ", server.stderr.readline())):
                assert server.poll() is None
            yield server, int(match[1])
        finally:
            server.terminate()


@contextlib.contextmanager
def litserve(run: str) -> Iterator[int]:
    """LitServe with the same model, on a free port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = int(listener.getsockname()[1])
    script = Path(__file__).with_name("serving_litserve.py")
    command = [sys.executable, str(script), run, str(port)]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True) as server:
        try:
            for _ in range(600):  # its worker loads the model
                time.sleep(0.2)
                assert server.poll() is None, f"{command}: ended with status {server.returncode}"
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
            yield port
        finally:
            os.killpg(server.pid, signal.SIGKILL)  # with its workers


def memory(process: int) -> float:
    """Resident MiB."""
    text = Path(f"/proc/{process}/status").read_text("utf-8")
    return int(re.search(r"VmRSS:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


def milliseconds(seconds: list[float]) -> str:
    if len(seconds) < 2:
        return "none"
    cuts = statistics.quantiles(seconds, n=100)
    return f"p50 {1000 * cuts[49]:.0f} ms, p99 {1000 * cuts[98]:.0f} ms"


async def overload(run: str, files: list[Path], minutes: float, check: Any) -> None:
    """Print what twice as many clients as the limit see."""
    bodies, clients = [file.read_bytes() for file in files], 2 * Limits.requests
    with serving(run) as (server, port):
        resident: list[float] = []

        async def watch() -> None:
            while True:
                resident.append(memory(server.pid))
                await asyncio.sleep(1)

        watcher = asyncio.create_task(watch())
        kind = "application/octet-stream"
        tally = await load(port, "/predict", kind, bodies, clients, 60 * minutes, check)
        watcher.cancel()
    answers, seconds = len(tally.seconds), 60 * minutes
    print(f"{minutes:g} minutes, {clients} clients, at most {Limits.requests} requests at once:")
    print(f"  statuses {dict(tally.statuses)}; wrong or without Retry-After: {len(tally.wrong)}")
    for line in tally.wrong[:5]:
        print("   ", line)
    print(
        f"  {answers:,} answers ({answers / seconds:.1f} images/s): {milliseconds(tally.seconds)}"
    )
    print(f"  largest difference of a probability from predict: {tally.difference:.2g}")
    print(f"  {len(tally.refused):,} refused for a while: {milliseconds(tally.refused)}")
    tenth = max(1, len(resident) // 10)
    parts = [resident[at : at + tenth] for at in range(0, len(resident), tenth)]
    text = " ".join(f"{max(part):.0f}" for part in parts)
    print(f"  resident memory, largest of each tenth of the time: {text} MiB", flush=True)


async def throughput(run: str, files: list[Path], rounds: int, check: Any) -> None:
    """Print images/s of both servers, in turn."""
    texts = [base64.b64encode(file.read_bytes()).decode() for file in files]
    bodies = [json.dumps({"image": text}).encode() for text in texts]
    rates: dict[str, list[float]] = {"residua": [], "LitServe": []}
    with serving(run) as (_, port), litserve(run) as other:
        for round_ in range(rounds + 1):  # the first warms both up
            for name, at in (("residua", port), ("LitServe", other)):
                kind, seconds = "application/json", SECONDS if round_ else 3.0
                tally = await load(at, "/predict", kind, bodies, CLIENTS, seconds, check)
                assert not tally.wrong, tally.wrong[0]
                if round_:
                    rates[name].append(len(tally.seconds) / seconds)
                    print(f"  {name}: {rates[name][-1]:.1f} images/s,", end=" ")
                    print(milliseconds(tally.seconds), flush=True)
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):.1f} images/s ", end="")
        print(f"({min(values):.1f} to {max(values):.1f}), {rounds} rounds, {CLIENTS} clients")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("images")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    paths = sorted(path for path in Path(options.images).rglob("*") if path.is_file())
    files = paths[:: max(1, len(paths) // 60)][:60]
    rows = residua.predict(options.run, [str(file) for file in files])
    files = [file for file, row in zip(files, rows, strict=True) if not row.error]  # no LICENSE
    expected = [row for row in rows if not row.error]
    facts = environment(torch.device("cpu"))
    print(
        f"# {datetime.datetime.now():%Y-%m-%d}; {facts['device_name']}, {os.cpu_count()} cores;",
        end=" ",
    )
    print(f"residua {facts['residua']}, torch {facts['torch']}; {len(files)} images", flush=True)

    def check(number: int, content: bytes, tally: Tally) -> None:
        (row,) = json.loads(content)
        found, wanted = row["top"], expected[number].top
        pairs = zip(found, wanted, strict=True)
        gap = max(abs(entry["probability"] - chance) for entry, (_, chance) in pairs)
        tally.difference = max(tally.difference, gap)
        if found[0]["class"] != wanted[0][0] or gap > LARGEST:
            tally.wrong.append(f"{files[number]}: {found}, expected {wanted}")

    if options.minutes:
        asyncio.run(overload(options.run, files, options.minutes, check))
    if options.rounds:
        asyncio.run(throughput(options.run, files, options.rounds, check))


if __name__ == "__main__":
    main()
