from .page import CONTENT_SECURITY_POLICY as CONTENT_SECURITY_POLICY
from .page import PageConfig as PageConfig
from .page import encode_page_config as encode_page_config
from .page import read_page_files as read_page_files

__all__ = ["CONTENT_SECURITY_POLICY", "PageConfig", "encode_page_config", "read_page_files"]
