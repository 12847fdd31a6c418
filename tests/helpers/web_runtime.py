"""The npm package onnxruntime-web: an imitation of it, and the real one."""

import hashlib
import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from ssd_jax.export import web_runtime


def write_package(file: Path, members: dict[str, bytes | tarfile.TarInfo]) -> str:
    """Write an archive like those of npm, and return its hash."""
    with tarfile.open(file, "w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return f"sha512:{hashlib.sha512(file.read_bytes()).hexdigest()}"


def download_package(folder: Path) -> Path:
    """Download the real package with npm, which knows the registry of this machine; skip the test if that fails."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("needs npm, which downloads onnxruntime-web")
    command = [npm, "pack", f"onnxruntime-web@{web_runtime.VERSION}", "--silent", "--pack-destination", str(folder)]
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        pytest.skip(f"needs the npm registry: {error}")
    (file,) = folder.glob("*.tgz")
    return file
