"""An application and an address -> a server that runs until SIGINT or SIGTERM."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from residua.errors import ResiduaError
from residua.serving.limits import Limits
from residua.system.console import Console
from residua.system.files import reason_of

if TYPE_CHECKING:
    from fastapi import FastAPI


def check_installed() -> None:
    """Raise ResiduaError if a package of the extra `serve` is missing."""
    try:
        import fastapi  # noqa: F401
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ResiduaError(
            f"serving needs {error.name}: pip install fastapi uvicorn python-multipart"
        ) from error


def serve_application(
    create: Callable[[], FastAPI],
    name: str,
    console: Console,
    *,
    host: str,
    port: int,
    limits: Limits,
    token: str | None,
    workers: int | None,
) -> None:
    """Serve an application until SIGINT or SIGTERM; requests in progress are finished.

    create: makes it; can be pickled. name: for the user. port: 0 for any free one. workers:
    processes that each run the application, replaced when they end or hang; None: it runs in this
    process. Raises ResiduaError if the address cannot be used.
    """
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    seconds = int(limits.seconds)
    with _listening(host, port) as listener:
        address = _address(host, listener.getsockname()[1])
        if not is_local(host):
            advice = "" if token else "; set --token to require a bearer token"
            console.warn(f"{host}: every machine that reaches it can send requests{advice}")
        config = uvicorn.Config(
            create,
            factory=True,
            workers=workers,
            log_level="warning",
            access_log=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=5,
            timeout_graceful_shutdown=seconds + 5,
            timeout_worker_healthcheck=seconds,  # a worker that is busy is not dead
        )
        if workers is None:
            config.load()  # the model is there before the address is printed
        console.print(f"serving {name} at {address} (Ctrl-C to stop)")
        with contextlib.suppress(KeyboardInterrupt):
            if workers is None:
                uvicorn.Server(config).run(sockets=[listener])
            else:
                Multiprocess(config, [listener]).run()
        console.print("stopped")


def is_local(host: str) -> bool:
    """Whether only this machine can reach a host name or address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listening(host: str, port: int) -> socket.socket:
    """A bound socket. Raises ResiduaError."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)  # from here on clients wait instead of being refused
    except (OSError, OverflowError) as error:
        raise ResiduaError(
            f"{_address(host, port)}: cannot be used: {reason_of(error).rstrip('.')}. Choose "
            "another --host or --port."
        ) from error
    return listener


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
