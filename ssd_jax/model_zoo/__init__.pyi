from .card import CardFacts as CardFacts
from .card import make_card as make_card
from .card import read_card_facts as read_card_facts
from .catalog import CATALOG as CATALOG
from .catalog import CatalogModel as CatalogModel
from .download import fetch_model as fetch_model
from .model_folder import is_model_folder as is_model_folder
from .model_folder import read_model_folder as read_model_folder
from .model_folder import write_model_folder as write_model_folder
from .opening import OpenedModel as OpenedModel
from .opening import load as load
from .opening import open_model as open_model
from .publishing import Pushed as Pushed
from .publishing import push as push
from .saving import save_model_folder as save_model_folder

__all__ = [
    "CATALOG",
    "CardFacts",
    "CatalogModel",
    "OpenedModel",
    "Pushed",
    "fetch_model",
    "is_model_folder",
    "load",
    "make_card",
    "open_model",
    "push",
    "read_card_facts",
    "read_model_folder",
    "save_model_folder",
    "write_model_folder",
]
