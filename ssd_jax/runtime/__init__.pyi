from .compilation import compiler_options as compiler_options
from .compilation import enable_compilation_cache as enable_compilation_cache
from .sharding import fetch as fetch
from .sharding import make_mesh as make_mesh
from .sharding import shard_batch as shard_batch
from .sharding import single_device_mesh as single_device_mesh

__all__ = [
    "compiler_options",
    "enable_compilation_cache",
    "fetch",
    "make_mesh",
    "shard_batch",
    "single_device_mesh",
]
