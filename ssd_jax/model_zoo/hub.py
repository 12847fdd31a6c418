"""Download and upload of model folders with huggingface_hub, the client of the Hugging Face Hub (the extra ``hub``).

huggingface_hub finds the token itself: in HF_TOKEN, or where ``hf auth login`` stored it. This module never reads it.
Addresses such as ``hf://user/name@revision`` name a model; the revision is a branch, a tag or a commit.
"""

import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import shorten
from types import ModuleType

from ssd_jax import __version__
from ssd_jax.errors import UserError, format_error_reason
from ssd_jax.model_zoo.model_folder import FILE_NAMES, WEIGHTS_NAME
from ssd_jax.runtime.progress import show_progress

_ADDRESS = re.compile(r"hf:[\\/]{1,2}(?=[^\\/])")
"""Start of an address. A path object has only one of the two slashes."""
_ADVICE_TOKEN = "Log in with `hf auth login`, or set HF_TOKEN to a token of https://huggingface.co/settings/tokens"

MAX_REASON = 300
"""Maximum number of characters of a reason that huggingface_hub gives."""


def is_address(source: str | Path) -> bool:
    """Return whether a text is the address of a model on the Hub, such as ``hf://user/name``."""
    return _ADDRESS.match(str(source)) is not None


def download_model(source: str | Path) -> Path:
    """Download a model folder from the Hub into the cache of huggingface_hub, and return its path.

    Only the files of a model folder are downloaded, and only those that are not in the cache. Without a connection, the
    version in the cache is used. The content of the files is not checked.

    Args:
        source: Address of the model, such as ``hf://user/name`` or ``hf://user/name@v1``.

    Raises:
        UserError: If the extra ``hub`` is not installed, there is no such model or revision, the Hub cannot be reached
            or denies access, or the repository holds no model of this program.
    """
    hub = _import_hub(str(source))
    address = _ADDRESS.sub("hf://", str(source).replace("\\", "/"))
    with _convert_errors(hub, address), _send_no_telemetry(hub):
        uri = hub.utils.parse_hf_uri(address)
        if uri.type != "model" or uri.path_in_repo:
            raise UserError(f"{address}: expected the address of a model, such as hf://user/name or hf://user/name@v1")
        with _show_transfer(hub, f"downloading {address}"):
            folder = Path(hub.snapshot_download(uri.id, revision=uri.revision, allow_patterns=list(FILE_NAMES)))
    missing = [name for name in ("config.json", WEIGHTS_NAME) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{address} holds no model of ssd-jax: the repository has no {' and no '.join(missing)}")
    return folder


def check_can_upload(repository: str) -> None:
    """Raise a UserError if the name of a repository is not valid, or no token is stored on this machine.

    Call this before the files are made. The Hub is not asked.

    Args:
        repository: Name of the repository, such as ``user/name``.
    """
    hub = _import_hub("push")
    if repository.count("/") != 1:
        raise UserError(f"{repository}: name the repository as user/name, with your user name or organization")
    with _convert_errors(hub, repository), _send_no_telemetry(hub):
        hub.utils.validate_repo_id(repository)
        if hub.get_token() is None:
            raise UserError(f"{repository}: no token of the Hugging Face Hub was found. {_ADVICE_TOKEN}")


def upload_files(files: Sequence[Path], repository: str, *, private: bool = False) -> str:
    """Upload files to a repository on the Hub in one commit, and return the address of its page.

    The repository is created if it does not exist. Other files in it are kept.

    Args:
        files: Files to upload, with different names.
        repository: Name of the repository, such as ``user/name``.
        private: Whether to create a private repository.

    Raises:
        UserError: If the extra ``hub`` is not installed, the Hub cannot be reached or refuses the upload, or if
            ``private`` is set and the repository exists and is public.
    """
    hub = _import_hub("push")
    with _convert_errors(hub, repository), _send_no_telemetry(hub):
        api = hub.HfApi()
        page = api.create_repo(repository, private=private or None, exist_ok=True)
        # create_repo does not change the visibility of a repository that exists.
        if private and not api.model_info(repository).private:
            raise UserError(f"{repository} exists and is public. Name another repository, or leave out --private")
        operations = [hub.CommitOperationAdd(file.name, file) for file in files]
        with _show_transfer(hub, f"uploading to {repository}"):
            api.create_commit(repository, operations, commit_message=f"Upload a detector of ssd-jax {__version__}")
    return str(page)


def _import_hub(purpose: str) -> ModuleType:
    """Return the module huggingface_hub.

    Raises:
        UserError: If it is not installed.
    """
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ModuleNotFoundError as error:
        if error.name != "huggingface_hub":
            raise
        raise UserError(
            f"{purpose} needs the package huggingface_hub. Install it with: pip install 'ssd-jax[hub]'"
        ) from None
    return huggingface_hub


@contextmanager
def _show_transfer(hub: ModuleType, title: str) -> Iterator[None]:
    """Show a clock during the ``with`` block in place of the progress bars of huggingface_hub."""
    has_bars = not hub.utils.are_progress_bars_disabled()
    if has_bars:
        hub.utils.disable_progress_bars()
    try:
        with show_progress(title):
            yield
    finally:
        if has_bars:
            hub.utils.enable_progress_bars()


@contextmanager
def _send_no_telemetry(hub: ModuleType) -> Iterator[None]:
    """Turn the telemetry of huggingface_hub off during the ``with`` block.

    Without this, it asks the Hub for a list of programs and tells which of them calls it, and the library hf_xet, which
    transfers the files and reads the environment, reports the speed of each transfer.
    """
    name = "HF_HUB_DISABLE_TELEMETRY"
    before, before_environment = getattr(hub.constants, name), os.environ.get(name)
    setattr(hub.constants, name, True)
    os.environ[name] = "1"
    try:
        yield
    finally:
        setattr(hub.constants, name, before)
        if before_environment is None:
            del os.environ[name]
        else:
            os.environ[name] = before_environment


@contextmanager
def _convert_errors(hub: ModuleType, subject: str) -> Iterator[None]:
    """Convert the exceptions of huggingface_hub into a UserError about a repository."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # whatever an answer of the server makes huggingface_hub raise
        logging.getLogger(__name__).debug("%s", subject, exc_info=True)
        raise UserError(f"{subject}: {_explain(hub, error)}") from None


def _explain(hub: ModuleType, error: Exception) -> str:
    """Return in one line what an exception of huggingface_hub means, and what to do."""
    errors = hub.errors
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception):
        return _explain(hub, error.__cause__)  # of a thread that uploads
    if isinstance(error, errors.LocalEntryNotFoundError) and isinstance(error.__cause__, Exception):
        return _explain(hub, error.__cause__)  # neither on the Hub nor in the cache
    if isinstance(error, errors.GatedRepoError):
        return "the owner restricts access to this repository. Ask for access on its page, and log in"
    if isinstance(error, errors.RevisionNotFoundError):
        return "the repository has no such revision (branch, tag or commit)"
    if isinstance(error, errors.HfHubHTTPError):
        return _explain_status(error.response.status_code, error.server_message)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "not in the cache, and HF_HUB_OFFLINE forbids to download it"
    if isinstance(error, errors.HTTPError):
        return f"{hub.constants.ENDPOINT} cannot be reached ({format_error_reason(error)}). Check the network"
    if isinstance(error, ValueError):
        return shorten(str(error), MAX_REASON, placeholder=" ...")  # such as the reasons why a card is refused
    return f"{type(error).__name__}: {format_error_reason(error)}"


def _explain_status(status: int, server_message: str | None) -> str:
    detail = f" ({server_message.strip().splitlines()[0]})" if server_message and server_message.strip() else ""
    if status == 401 and "Invalid" in detail:
        return f"the token is not valid{detail}. {_ADVICE_TOKEN}"
    if status == 401:
        return f"there is no such repository, or it is private{detail}. {_ADVICE_TOKEN}"
    if status == 403:
        return f"the token does not permit this{detail}. Use a token with write access to this user or organization"
    if status == 404:
        return "there is no such repository, or it is private and the token has no access"
    return f"the Hub answered with status {status}{detail}. Try again later"
