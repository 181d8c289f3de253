"""10,000 mutated images, and schemathesis, against `residua serve`: no status 500, no hang.

    python benchmarks/serving_hostile.py RUN IMAGES [--count 10000] [--seed 0]

Mutations: bytes changed, removed, repeated, cut off, spliced from another file; of JPEG, PNG, GIF,
WebP, BMP, TIFF and PPM files. Then `schemathesis run` on /openapi.json, if it is on the PATH (pip
install schemathesis; an environment of its own will do). The output is results/serving-hostile.txt.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
from conditions import conditions
from PIL import Image
from serving_load import serving

FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM")
CLIENTS, TIMEOUT = 8, 60.0


def seeds_of(files: list[Path]) -> list[bytes]:
    """Each image as it is, and small in every format."""
    contents = []
    for file in files:
        contents.append(file.read_bytes())
        with Image.open(file) as image:
            small = image.convert("RGB").resize((48, 40))
        for name in FORMATS:
            stream = io.BytesIO()
            small.save(stream, name)
            contents.append(stream.getvalue())
    return contents


def mutated(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One to four changes of a file."""
    for _ in range(random.integers(1, 5)):
        size = max(1, len(data))
        start = int(size * random.random() ** 3)  # headers are hit most
        stop = min(size, start + int(random.integers(1, 64)))
        match random.integers(6):
            case 0:
                data = data[:start] + random.bytes(stop - start) + data[stop:]
            case 1:
                data = data[:start] + data[stop:]
            case 2:
                data = data[:stop] + data[start:stop] * int(random.integers(1, 50)) + data[stop:]
            case 3:
                data = data[: max(1, size - start)]
            case 4:
                data = data[:start] + other[start : start + 2 * (stop - start)] + data[stop:]
            case _:
                value = int(random.choice([0, 1, 0x7F, 0x80, 0xFF]))
                data = data[:start] + bytes([value]) * min(4, stop - start) + data[start + 4 :]
    return data


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("images")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    paths = sorted(path for path in Path(options.images).rglob("*") if path.is_file())
    contents = seeds_of(paths[:: max(1, len(paths) // 6)][:6])
    print(f"# hostile requests to residua serve (serving_hostile.py), seed {options.seed}")
    print(f"# {conditions('fastapi', 'starlette', 'uvicorn', 'python-multipart', 'pillow')}")
    with serving(options.run) as (server, port):
        address = f"http://127.0.0.1:{port}"
        client = httpx.Client(base_url=address, timeout=TIMEOUT)

        def send(number: int) -> tuple[str, float]:
            random = np.random.default_rng((options.seed, number))
            first, other = (contents[random.integers(len(contents))] for _ in range(2))
            data, began = mutated(first, other, random), time.monotonic()
            try:
                if number % 2:
                    form = [("images", ("a", data)), ("images", ("b", first))]
                    response = client.post("/predict", files=form)
                else:
                    kind = {"Content-Type": "application/octet-stream"}
                    response = client.post("/predict", content=data, headers=kind)
                status = str(response.status_code)
                if status not in ("200", "422"):
                    print(f"  number {number}: {status} {response.text[:200]}")
            except httpx.HTTPError as error:
                status = type(error).__name__
                print(f"  number {number}: {status} {error}")
            return status, time.monotonic() - began

        with ThreadPoolExecutor(CLIENTS) as pool:
            results = list(pool.map(send, range(options.count)))
        counts = Counter(status for status, _ in results)
        slowest = max((seconds for _, seconds in results), default=0.0)
        print(f"{options.count:,} mutated images: {dict(counts)}; slowest {slowest:.1f} s")
        alive = client.get("/v2/health/live").status_code
        print(f"afterwards: health {alive}, running: {server.poll() is None}", flush=True)
        tool = shutil.which("schemathesis")
        if tool:
            words = ["run", f"{address}/openapi.json", "--max-examples", "200", "--seed", "1"]
            words += ["--request-timeout", "20", "--no-color", "--workers", "2"]
            # a schema cannot say that bytes are an image of the right size
            words += ["--exclude-checks", "positive_data_acceptance"]
            with tempfile.TemporaryDirectory() as folder:  # it writes its cache where it runs
                done = subprocess.run([tool, *words], capture_output=True, text=True, cwd=folder)
            print("\n".join(done.stdout.splitlines()[-80:]), done.stderr[-2000:])


if __name__ == "__main__":
    main()
