"""Read YAML and JSON files, with limits against files that would need unlimited time or memory."""

import json
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import yaml

from ssd_jax.data.source import read_text
from ssd_jax.errors import UserError
from ssd_jax.files import convert_read_errors, convert_to_utf8

MAX_YAML_ENTRIES = 1_000_000
"""Largest number of entries of a YAML file, counted after its aliases are replaced by what they stand for."""


class _Loader(yaml.BaseLoader):
    """Loader that reads all scalars as strings."""

    def construct_scalar(self, node: yaml.ScalarNode) -> Any:
        r"""Return a string in which pairs of surrogates, such as ``\ud83d\udc08`` in JSON, are joined to characters."""
        text = super().construct_scalar(node)
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") if isinstance(text, str) else text


def read_yaml(file: Path) -> Any:
    """Return the content of a YAML file, with all scalars as strings because a class may be called 3, no or 1.10.

    Raises:
        UserError: If the file cannot be read, is not valid YAML, has a key twice in one mapping, is nested too deeply,
            or expands to more than `MAX_YAML_ENTRIES` entries.
    """
    text = read_text(file)
    try:
        node = yaml.compose(text, _Loader)
        if node is None:
            return None
        _check_node(file, node)
        loader = _Loader("")
        try:
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise UserError(f"{file}: not valid YAML: {' '.join(str(error).split())}. Correct it.") from error
    except RecursionError:
        raise UserError(f"{file}: its entries are nested too deeply. Write a flat file.") from None


def _check_node(file: Path, root: yaml.Node) -> None:
    """Raise a UserError if a tree of YAML nodes is too large when its aliases are expanded, or has a repeated key."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) in sizes:
            return sizes[id(node)]
        sizes[id(node)] = MAX_YAML_ENTRIES + 1  # an alias to a parent of this node expands without end
        children = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            _check_keys(file, node)
            children = [child for pair in node.value for child in pair]
        sizes[id(node)] = 1 + sum(map(size, children))
        return sizes[id(node)]

    if size(root) > MAX_YAML_ENTRIES:
        raise UserError(
            f"{file}: its aliases expand to more than {MAX_YAML_ENTRIES} entries. Write the values instead of aliases."
        )


def _check_keys(file: Path, node: yaml.MappingNode) -> None:
    seen: set[Hashable] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                line = key.start_mark.line + 1
                raise UserError(f"{file}: line {line} has the key '{key.value}' a second time. Remove or rename one.")
            seen.add(key.value)


def read_json(file: Path, kind: Any, unique_keys: Sequence[str] = ()) -> Any:
    """Return the content of a JSON file as a type that msgspec knows.

    Args:
        file: The file.
        kind: The type.
        unique_keys: Keys that must not occur twice in one object. Of other repeated keys, the last one is used.

    Raises:
        UserError: If the file cannot be read, is not valid JSON, is nested too deeply, or has one of the unique keys
            twice in one object.
        msgspec.ValidationError: If the content is not of this type.
    """
    with convert_read_errors(file):
        data = convert_to_utf8(file.read_bytes())
    try:
        content = msgspec.json.decode(data, type=kind)
        _check_unique_keys(file, data, unique_keys)
        return content
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if isinstance(error, msgspec.ValidationError) and kind is not Any:
            raise
        raise UserError(f"{file}: not valid JSON: {error}{_json_error_context(data, error)}") from error
    except RecursionError:
        raise UserError(f"{file}: its entries are nested too deeply. Export the file again.") from None


def _check_unique_keys(file: Path, data: bytes, keys: Sequence[str]) -> None:
    """Raise a UserError if one of the keys occurs twice in one object of a valid JSON document."""
    repeated = {key for key in keys if data.count(f'"{key}"'.encode()) > 1}
    if not repeated:  # the usual case, found without parsing the document again
        return

    def check(pairs: list[tuple[str, Any]]) -> None:
        for key, count in Counter(key for key, _ in pairs if key in repeated).items():
            if count > 1:
                raise UserError(f"{file}: the key '{key}' occurs twice. Join the values, or remove one of the keys.")

    json.loads(data, object_pairs_hook=check)


def _json_error_context(data: bytes, error: Exception) -> str:
    """Return the end of a message about invalid JSON: the line number, the text at the error, and advice."""
    match = re.search(r"\(byte (\d+)\)", str(error))
    if match is None:
        return ". Export or copy it again."
    position = int(match[1])
    text = " ".join(data[max(position - 30, 0) : position + 10].decode(errors="replace").split())
    is_number = data.startswith((b"NaN", b"Infinity"), position)
    advice = "JSON has no NaN or Infinity; write a number." if is_number else "Export or copy it again."
    if data[position : position + 1] == b"'":
        advice = "It looks like a printed Python dict; write it with Python's json.dump."
    line = 1 + data.count(b"\n", 0, position)
    return f", in line {line}: ... {text} ... {advice}"
