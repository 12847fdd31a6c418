"""The files of onnxruntime-web, which runs ONNX files in browsers.

They are not part of this package, because they are larger than it. They come from the npm registry, or from a file that
the user downloaded elsewhere, and are kept in the cache folder.
"""

import importlib.resources
import os
import tarfile
from pathlib import Path

from ssd_jax.errors import convert_errors
from ssd_jax.files import find_cache_folder
from ssd_jax.runtime.download import RemoteFile, copy_to_cache, fetch_file

VERSION = "1.30.0"
DIGEST = (
    "sha512:ab4cbe26baedba45d2cec05610c71c55fa97db92d19a8b171c5f8269126683ca"
    "590a5cdc57bb2f35ce2b298de32f4d956fb42644c0ecd528a0a91e025c07ca61"
)
"""Hash of the npm package, as the registry states it under ``dist.integrity``, in hexadecimal digits."""
REGISTRY_VARIABLE = "npm_config_registry"
"""Environment variable that names another npm registry, as for npm itself."""
PUBLIC_REGISTRY = "https://registry.npmjs.org"
MEMBERS = {
    # Some servers send files named .mjs with a type that browsers refuse for modules.
    "onnxruntime.js": "package/dist/ort.wasm.bundle.min.mjs",
    "ort-wasm-simd-threaded.wasm": "package/dist/ort-wasm-simd-threaded.wasm",
}
"""Files of the npm package that a page needs, by their names beside the page."""
_MAX_BYTES = 100_000_000
"""Size above which a file of the archive is not the expected one."""


def find_remote_file() -> RemoteFile:
    """Return the npm package as a file to download."""
    registry = os.environ.get(REGISTRY_VARIABLE) or PUBLIC_REGISTRY
    return RemoteFile(
        name=f"onnxruntime-web {VERSION}",
        url=f"{registry.rstrip('/')}/onnxruntime-web/-/onnxruntime-web-{VERSION}.tgz",
        digest=DIGEST,
        megabytes=33,
        license="MIT (Microsoft)",
        command="ssd-jax export ... --format web --runtime FILE",
    )


def provide_archive(archive: Path | None = None) -> Path:
    """Return the npm package in the cache, after downloading it if it is not there.

    Args:
        archive: The npm package, to be copied into the cache instead of a download.

    Raises:
        UserError: If it cannot be downloaded, if ``archive`` is another file, or if the cache cannot be written.
    """
    remote = find_remote_file()
    cached = find_cache_folder() / "onnxruntime-web" / remote.file_name
    return fetch_file(remote, cached) if archive is None else copy_to_cache(remote, archive, cached)


def read_runtime_files(archive: Path) -> dict[str, bytes]:
    """Return the content of the files that a page needs by their names, with their license.

    Nothing is extracted: only the files of `MEMBERS` are read, whatever paths the archive contains.

    Args:
        archive: The npm package.

    Raises:
        UserError: If a file is missing or the archive cannot be read.
    """
    with (
        convert_errors(f"{archive}: can't be read", "Remove it, and give the same command again."),
        tarfile.open(archive) as tar,
    ):
        files = {name: _read_member(tar, member) for name, member in MEMBERS.items()}
    return files | {"onnxruntime_license.txt": _read_license()}


def _read_member(tar: tarfile.TarFile, name: str) -> bytes:
    member = tar.getmember(name)
    stream = tar.extractfile(member) if member.isreg() and member.size <= _MAX_BYTES else None
    if stream is None:
        raise ValueError(f"{name} is not the expected file")
    with stream:
        return stream.read()


def _read_license() -> bytes:
    """Return the license of ONNX Runtime, which its npm package only names, and the notices about its parts.

    The notices come with the Python package, if it has them.
    """
    text = importlib.resources.files("ssd_jax.export").joinpath("onnxruntime_license.txt").read_bytes()
    notices = importlib.resources.files("onnxruntime").joinpath("ThirdPartyNotices.txt")
    return text + b"\n" + notices.read_bytes() if notices.is_file() else text
