"""Download the files of the catalog into the cache folder."""

from pathlib import Path

from ssd_jax.files import find_cache_folder
from ssd_jax.model_zoo.catalog import CatalogModel
from ssd_jax.runtime import download
from ssd_jax.runtime.download import RemoteFile


def find_cached_path(model: CatalogModel) -> Path:
    """Return the path that the file of a model has in the cache, whether it is there or not."""
    return find_cache_folder() / "models" / model.file_name


def fetch_model(model: CatalogModel) -> Path:
    """Return the file of a model in the cache, after downloading it if it is not there.

    Args:
        model: A model of the catalog that is not bundled.

    Returns:
        The path of a file with the right hash.

    Raises:
        UserError: As `ssd_jax.runtime.download.fetch_file`.
    """
    return download.fetch_file(_make_remote_file(model), find_cached_path(model))


def add_to_cache(model: CatalogModel, source: Path) -> Path:
    """Copy a file that was downloaded in another way into the cache, after checking its hash.

    Args:
        model: A model of the catalog that is not bundled.
        source: The file, whatever its name is.

    Returns:
        The path of the copy.

    Raises:
        UserError: As `ssd_jax.runtime.download.copy_to_cache`.
    """
    return download.copy_to_cache(_make_remote_file(model), source, find_cached_path(model))


def format_license(model: CatalogModel) -> str:
    """Return a line with the license, the size and the address of a model."""
    return download.format_license(_make_remote_file(model))


def _make_remote_file(model: CatalogModel) -> RemoteFile:
    command = f"ssd-jax models {model.name} --from FILE"
    return RemoteFile(model.name, model.url, model.digest, model.megabytes, model.license, command)
