"""Prepare a public data set of tensorflow-datasets (tfds) from local archives, for `ssd_jax.data.formats.tfds`.

This is the only module that needs TensorFlow, because the code of these data sets in tfds imports it. The module never
accesses the network.
"""

import hashlib
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from ssd_jax.config import Data
from ssd_jax.data.formats.tfds import PREFIX, prepared_builder, tfds_dir
from ssd_jax.errors import UserError, convert_errors


def prepare_tfds(data: Data, archives: Path, any_checksum: bool = False) -> tfds.core.DatasetBuilder:
    """Write the data set named by ``data.root`` to ArrayRecord files in the folder of prepared data sets.

    A data set that is already prepared is left unchanged. The archives are unpacked into a temporary folder in the
    folder of prepared data sets.

    Args:
        data: ``data.root`` is the name of the data set, ``data.tfds_dir`` the folder of prepared data sets.
        archives: Folder with the archives of the data set under their original names.
        any_checksum: Whether to accept archives whose checksums differ from those that tfds knows.

    Returns:
        The builder (tfds' object for a data set) of the prepared data set.

    Raises:
        UserError: If TensorFlow is not installed, tfds does not know the data set, or archives are missing, corrupt or
            not the original archives. All missing archives are listed.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "prepare-data needs TensorFlow, which is not installed. Install it with: pip install tensorflow. All other "
            "commands work without it, also on the prepared data set."
        )
    if not archives.is_dir():
        raise UserError(f"--archives: the folder '{archives}' does not exist. Give the folder of the archives.")
    folder = tfds_dir(data)
    try:
        builder = tfds.builder(data.root.removeprefix(PREFIX), data_dir=folder, try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f"{data.root}: tfds has no data set of this name, or can't prepare it. {error}") from error
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # in a log file, the progress bar would be one line for each file
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpacked.", dir=folder) as unpacked:
        manager = _LocalArchives(builder, archives, any_checksum, unpacked)
        # tfds has no public way to supply a download manager, and its own would access the network.
        builder._make_download_manager = lambda **_: manager
        # The code of the data set, tfds and TensorFlow raise exceptions of many types.
        with convert_errors(
            f"{data.root}: can't be prepared from '{archives}'",
            "Check that the archives are complete.",
            reason=lambda error: f"{type(error).__name__}: {error}",
        ):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
            )
    return prepared_builder(data)


class _LocalArchives(tfds.download.DownloadManager):
    """Download manager of tfds that returns files in a folder instead of downloading them."""

    def __init__(self, builder: tfds.core.DatasetBuilder, archives: Path, any_checksum: bool, unpacked: str):
        super().__init__(
            download_dir=unpacked,
            manual_dir=archives,
            manual_dir_instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
            dataset_name=builder.name,
        )
        self._set, self._archives, self._any_checksum = builder.info.full_name, archives, any_checksum
        self._known_files = builder.url_infos or {}
        self._sizes: dict[Path, int] = {}

    @property
    def downloaded_size(self) -> int:
        return sum(self._sizes.values())

    def download(self, url_or_urls: Any) -> Any:
        self._check_archives_exist(url_or_urls)
        return _map_leaves(lambda leaf: self._verified_file(_leaf_url(leaf)), url_or_urls)

    def download_and_extract(self, url_or_urls: Any) -> Any:
        self._check_archives_exist(url_or_urls)
        return self.extract(_map_leaves(self._archive_resource, url_or_urls))

    def download_kaggle_data(self, competition_or_dataset: str) -> Any:
        raise UserError(
            f"{self._set}: tfds downloads this data set with Kaggle's program, so it can't be prepared from archives."
        )

    def _archive_resource(self, leaf: Any) -> tfds.download.Resource:
        resource = leaf if isinstance(leaf, tfds.download.Resource) else tfds.download.Resource(url=str(leaf))
        resource.path = tfds.core.as_path(self._verified_file(resource.url))
        return resource

    def _archive_path(self, url: str) -> Path:
        """Return the path of the archive for a URL.

        The file name is registered in tfds together with the checksum. If none is registered, it is the last part of
        the URL.
        """
        known = self._known_files.get(url)
        return self._archives / ((known and known.filename) or os.path.basename(url))

    def _check_archives_exist(self, urls: Any) -> None:
        files = {url: self._archive_path(url) for url in map(_leaf_url, _leaves(urls))}
        missing = [f"  {file.name}  from {url}" for url, file in files.items() if not file.exists()]
        if missing:
            raise UserError(
                f"{self._set}: missing in '{self._archives}' (nothing is downloaded):",
                *dict.fromkeys(missing),
                "Put these archives there, under these names.",
            )

    def _verified_file(self, url: str) -> Path:
        file, known = self._archive_path(url), self._known_files.get(url)
        if file not in self._sizes:
            if known is not None and not self._any_checksum and _sha256(file) != known.checksum:
                raise UserError(
                    f"{file}: not the original archive, since its checksum differs. Copy it again if it may be "
                    "incomplete, or add --any-checksum to use another archive on purpose."
                )
            self._sizes[file] = file.stat().st_size
        return file


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _leaf_url(leaf: Any) -> str:
    return leaf.url if isinstance(leaf, tfds.download.Resource) else str(leaf)


def _map_leaves(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree of nested dicts, lists and tuples, with a function applied to each leaf."""
    if isinstance(tree, Mapping):
        return {key: _map_leaves(function, branch) for key, branch in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_map_leaves(function, branch) for branch in tree)
    return function(tree)


def _leaves(tree: Any) -> Iterator[Any]:
    leaves: list[Any] = []
    _map_leaves(leaves.append, tree)
    return iter(leaves)
