"""``ssd-jax models``: list the trained networks that can be had by name, describe one, or put one into the cache."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ssd_jax.commands.options import parse_options
from ssd_jax.errors import UserError
from ssd_jax.model_zoo import catalog
from ssd_jax.model_zoo.catalog import CatalogModel

NOTES = """\
bundled: the model comes with ssd-jax. to download: it is downloaded when it is
first used. cached: it was downloaded before. The second line shows the network,
the data and the published accuracy, which is COCO's AP or VOC's mAP in percent.
`ssd-jax models NAME` names its source.

ssd-jax predict NAME IMAGES                         detects objects
ssd-jax train CONFIG --train.pretrained NAME        trains from it
ssd-jax import-weights NAME --out RUN               writes it to a run folder"""


@dataclass(frozen=True)
class ModelsOptions:
    """List the trained networks that can be had by name. With NAME, describe one of them."""

    name: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="[NAME]", help_behavior_hint="")] = None
    """Name of a model. Without it, the models are listed."""
    fetch: bool = False
    """Download the model into the cache now."""
    file: Annotated[Path | None, tyro.conf.arg(name="from", metavar="FILE")] = None
    """File of the model that was downloaded in another way. It is copied into the cache after a check of its hash."""


def run(argv: Sequence[str]) -> None:
    """Run ``ssd-jax models`` with the arguments ``argv``."""
    options = parse_options(ModelsOptions, "models", argv)
    if options.name is None:
        if options.fetch or options.file is not None:
            raise UserError("models: name the model, as in `ssd-jax models NAME --fetch`")
        print(f"{format_catalog(catalog.CATALOG.values())}\n\n{NOTES}\n\n{describe_cache()}")
        return
    model = find_catalog_model(options.name)
    if options.fetch or options.file is not None:
        _put_into_cache(model, options)
    else:
        print(describe_model(model))


def find_catalog_model(name: str) -> CatalogModel:
    """Return the model of a name in the catalog.

    Raises:
        UserError: If there is none. The message lists similar names.
    """
    if name not in catalog.CATALOG:
        raise UserError(
            f"there is no model named {name}. {catalog.format_similar_names(name)}`ssd-jax models` lists the names"
        )
    return catalog.CATALOG[name]


def format_catalog(models: Iterable[CatalogModel]) -> str:
    """Return two lines for each model, of at most 80 characters."""
    lines = []
    for model in models:
        classes = f"{model.classes} classes, " if model.classes else ""
        accuracy = f": {model.accuracy}" if model.accuracy else ""
        lines += [
            f"{model.name:27} {find_place(model):11} {format_size(model):>5} MB  {model.license.partition(' (')[0]}",
            f"    {model.network}, {classes}{model.data}{accuracy}",
        ]
    return "\n".join(lines)


def format_size(model: CatalogModel) -> str:
    """Return the size of the files of a model in units of 1 000 000 bytes."""
    if model.is_bundled:
        return f"{sum(file.stat().st_size for file in model.folder.iterdir()) / 1e6:.1f}"
    return str(model.megabytes)


def find_place(model: CatalogModel) -> str:
    """Return where a model is: "bundled", "cached" or "to download"."""
    from ssd_jax.model_zoo.download import find_cached_path

    if model.is_bundled:
        return "bundled"
    return "cached" if find_cached_path(model).is_file() else "to download"


def describe_cache() -> str:
    """Return a sentence that names the cache folder."""
    from ssd_jax.files import CACHE_VARIABLE, find_cache_folder

    return f"Cache folder: {find_cache_folder()} ({CACHE_VARIABLE} names another one)"


def describe_model(model: CatalogModel) -> str:
    """Return the card of a bundled model, or a description of a model to download."""
    from ssd_jax.model_zoo.download import find_cached_path

    if model.is_bundled:
        from ssd_jax.model_zoo.model_folder import CARD_NAME

        return f"{(model.folder / CARD_NAME).read_text(encoding='utf-8').rstrip()}\n\nFolder: {model.folder}"
    accuracy = f"{model.accuracy} ({model.source})" if model.accuracy else "not published for this file"
    classes = f"{model.classes} classes" if model.classes else "a backbone without predictors"
    file = find_cached_path(model)
    place = f"in the cache: {file}" if file.is_file() else f"to be downloaded, {model.megabytes} MB, to {file}"
    return "\n".join([
        f"{model.name}: {model.network}, {classes}, trained on {model.data}",
        f"  accuracy  {accuracy}",
        f"  license   {model.license}",
        f"  file      {model.url}",
        f"  hash      {model.digest}",
        *([f"  archive   {model.member}"] if model.member else []),
        f"  settings  those of {model.project}, see docs/weights.md",
        f"  place     {place}",
    ])  # fmt: skip


def _put_into_cache(model: CatalogModel, options: ModelsOptions) -> None:
    """Download the file of a model, or copy it from a file."""
    from ssd_jax.model_zoo.download import add_to_cache, fetch_model, format_license

    if model.is_bundled:
        raise UserError(f"{model.name} comes with ssd-jax, so there is nothing to download")
    if options.file is not None:
        file = add_to_cache(model, options.file)
        print(format_license(model))
    else:
        file = fetch_model(model)
    print(f"In the cache: {file}. Its hash is right.")
