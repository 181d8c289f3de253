"""hub:REPO[@REVISION] -> the weights file of a Hugging Face repository, in the cache; and back.

Only the file model.safetensors is downloaded, and reading it runs no code. The address of the hub
is $HF_ENDPOINT, the token that of `hf auth login` or $HF_TOKEN.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from residua.config.schema import HUB, JOINER
from residua.errors import ResiduaError
from residua.system.console import printable
from residua.system.files import cache_folder

WEIGHTS = "model.safetensors"
ADDRESS = "https://huggingface.co"
CONNECTION_SECONDS = 5.0
_NAME = r"[A-Za-z0-9][\w.-]*"


def is_hub(source: str | os.PathLike[str]) -> bool:
    """Whether a source of weights is a repository, even if a file has that name."""
    return str(source).partition(":")[0] == HUB and JOINER not in str(source)


def hub_file(source: str) -> Path:
    """The weights of hub:REPO[@REVISION], downloaded unless they are in the cache.

    Without a connection, what was downloaded before is used. Raises ResiduaError.
    """
    repository, _, revision = source.partition(":")[2].partition("@")
    hub = _hub()
    address = f"{_endpoint()}/{checked_name(repository)}/resolve/{revision or 'main'}/{WEIGHTS}"
    with _readable_errors(source, repository, revision):
        path = hub.hf_hub_download(
            repository,
            WEIGHTS,
            revision=revision or None,
            cache_dir=cache_folder() / "hub",
            endpoint=_endpoint(),
            local_files_only=not _is_reachable(hub, address),
        )
    return Path(path)


def upload(folder: Path, repository: str, message: str, *, private: bool) -> str:
    """Upload the files of a folder to a repository, created if necessary; its address.

    Raises ResiduaError.
    """
    hub = _hub()
    checked_name(repository)
    if hub.get_token() is None:
        raise ResiduaError(
            f"{repository}: uploading needs a token: run `hf auth login`, or set HF_TOKEN."
        )
    if not _is_reachable(hub, _endpoint()):
        raise ResiduaError(
            f"{repository}: {_endpoint()} cannot be reached. Check the connection and HF_ENDPOINT."
        )
    with _readable_errors(repository, repository, ""):
        api = hub.HfApi(endpoint=_endpoint())
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=message)
    return f"{_endpoint()}/{repository}"


def checked_name(repository: str) -> str:
    """The name of a repository. Raises ResiduaError unless it is OWNER/NAME."""
    if not re.fullmatch(rf"{_NAME}/{_NAME}", repository):
        raise ResiduaError(f"{printable(repository)!r}: expected a repository, OWNER/NAME.")
    return repository


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", ADDRESS).rstrip("/")


def _is_reachable(hub: Any, address: str) -> bool:
    """Whether the server can be reached; huggingface_hub would retry for half a minute."""
    try:
        hub.utils.get_session().head(address, timeout=CONNECTION_SECONDS)
    except Exception:  # of its HTTP client, which is another package
        return False
    return True


def _hub() -> Any:
    """The package huggingface_hub. Raises ResiduaError if it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ResiduaError(
            "repositories of Hugging Face need huggingface_hub: pip install huggingface_hub"
        ) from error
    return huggingface_hub


@contextmanager
def _readable_errors(source: str, repository: str, revision: str) -> Iterator[None]:
    """Turn the errors of huggingface_hub into a ResiduaError of one sentence."""
    from huggingface_hub import errors

    known: dict[type[Exception], str] = {  # the first that matches counts
        errors.RevisionNotFoundError: f"{repository} has no revision {revision!r}: expected a "
        "branch, a tag or a commit.",
        errors.RemoteEntryNotFoundError: f"{repository} has no {WEIGHTS}: expected a repository "
        "that `residua push` wrote.",
        errors.GatedRepoError: f"{repository} is gated: accept its terms at "
        f"{_endpoint()}/{repository}.",
        errors.RepositoryNotFoundError: f"{_endpoint()} has no repository {repository}, or it is "
        "private and the token (`hf auth login`, HF_TOKEN) may not read it.",
        errors.LocalEntryNotFoundError: f"{_endpoint()} cannot be reached, and the file was not "
        "downloaded before. Check the connection and HF_ENDPOINT.",
    }
    try:
        yield
    except tuple(known) as error:
        problem = next(text for kind, text in known.items() if isinstance(error, kind))
        raise ResiduaError(f"{source}: {problem}") from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        advice = " Check the token (`hf auth login`, HF_TOKEN)." if status in (401, 403) else ""
        raise ResiduaError(f"{source}: {_endpoint()} returned status {status}.{advice}") from error
    except ResiduaError:
        raise
    except Exception as error:  # of its HTTP client, which is another package
        reason = printable(" ".join(str(error).split())[:200]) or type(error).__name__
        raise ResiduaError(f"{source}: the transfer failed: {reason}") from error
