"""Prepares a public tfds set from archives on the disk: what `ssd_jax.data.formats.tfds` reads.

The one part that needs TensorFlow, since tfds' code for these sets does. The network is never asked.
"""

import dataclasses
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource
from tensorflow_datasets.core.download.checksums import compute_url_info
from tensorflow_datasets.core.download.download_manager import NonMatchingChecksumError

from ssd_jax.config import Data
from ssd_jax.data.formats.tfds import PREFIX, prepared_builder, tfds_dir
from ssd_jax.errors import UserError


def prepare_tfds(data: Data, archives: Path, any_checksum: bool = False) -> tfds.core.DatasetBuilder:
    """Writes the set that data.root names as ArrayRecord below `tfds_dir`; one that is there stays as it is.

    The archives are unpacked beside the result, and what was unpacked is removed at the end.

    archives: folder that holds the set's archives under their original names.
    any_checksum: take archives other than those whose checksums tfds knows.

    Raises UserError where TensorFlow is not installed, for a name that tfds doesn't know, archives that
    are missing (all that are asked for together are named), other than the original ones or damaged.
    """
    if importlib.util.find_spec("tensorflow") is None:
        raise UserError(
            "prepare-data needs TensorFlow, which is not installed: pip install tensorflow. Nothing else needs it; the "
            "prepared set is read without."
        )
    if not archives.is_dir():
        raise UserError(f"--archives: there is no folder '{archives}'. Name the one that holds the archives.")
    folder = tfds_dir(data)
    try:
        builder = tfds.builder(data.root.removeprefix(PREFIX), data_dir=folder, try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise UserError(f"{data.root}: tfds can't make a set of this name. {error}") from error
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()  # a line for each file would fill a log
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="unpacked.", dir=folder) as unpacked:
        manager = _Archives(builder, archives, any_checksum, unpacked)
        builder._make_download_manager = lambda **_: manager
        try:
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(try_download_gcs=False), file_format="array_record"
            )
        except UserError:
            raise
        except NonMatchingChecksumError as error:
            raise UserError(
                f"{data.root}: an archive is not the original one; was it copied whole? If it is meant to be "
                f"another, add --any-checksum. {error}"
            ) from error
        except Exception as error:  # of tfds, its code for this set, or TensorFlow: of any class
            raise UserError(
                f"{data.root}: can't be prepared from '{archives}': {type(error).__name__}: {error}"
            ) from error
    return prepared_builder(data)


class _Archives(tfds.download.DownloadManager):
    """Finds in a folder what tfds would download."""

    def __init__(self, builder: tfds.core.DatasetBuilder, archives: Path, any_checksum: bool, unpacked: str):
        super().__init__(
            download_dir=unpacked,
            manual_dir=archives,
            manual_dir_instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
            url_infos=builder.url_infos,
            dataset_name=builder.name,
        )
        self._set, self._any_checksum = builder.info.full_name, any_checksum

    def download(self, url_or_urls: Any) -> Any:
        self._expect(url_or_urls)
        return super().download(url_or_urls)

    def download_and_extract(self, url_or_urls: Any) -> Any:
        self._expect(url_or_urls)
        return super().download_and_extract(url_or_urls)

    def download_kaggle_data(self, competition_or_dataset: str) -> Any:
        raise UserError(f"{self._set}: Kaggle's program downloads it, so that it can't be prepared from archives.")

    def _expect(self, urls: Any) -> None:
        """tfds takes from manual_dir what is there under the name registered with the checksum."""
        names = {}
        for url in _leaves(urls):
            known = self._url_infos.get(url)
            names[url] = (known and known.filename) or os.path.basename(url)
        missing = [f"  {name}  from {url}" for url, name in names.items() if not (self._manual_dir / name).exists()]
        if missing:
            raise UserError("\n".join([
                f"{self._set}: not in '{self._manual_dir}', and nothing is downloaded here:", *dict.fromkeys(missing),
                "Put these archives there, under these names.",
            ]))  # fmt: skip
        for url, name in names.items():
            known = self._url_infos.get(url)
            if known is None or self._any_checksum:
                known = compute_url_info(self._manual_dir / name)
            self._url_infos[url] = dataclasses.replace(known, filename=name)


def _leaves(urls: Any) -> Iterator[str]:
    """Of nested dicts and lists of addresses."""
    if isinstance(urls, Mapping):
        urls = list(urls.values())
    if isinstance(urls, list | tuple):
        for branch in urls:
            yield from _leaves(branch)
    else:
        yield urls.url if isinstance(urls, resource.Resource) else str(urls)
