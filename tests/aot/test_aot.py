"""Compilation for absent devices. Tests that compile run only with SSD_JAX_AOT=1 and libtpu (``make aot``)."""

import importlib.metadata
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import msgspec
import pytest
from helpers.cli import ROOT, TINY, command
from helpers.paths import ASSETS
from jax import lax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from ssd_jax.aot import programs, targets
from ssd_jax.aot.compiled import (
    Collective,
    Costs,
    Memory,
    array_bytes,
    find_collectives,
    find_host_transfers,
    read_out_of_memory,
)
from ssd_jax.aot.flops import count_flops, valid_taps
from ssd_jax.aot.report import format_report, format_table, memory_problem, roofline
from ssd_jax.aot.targets import CHIPS, GIB, parse_target
from ssd_jax.commands.aot import with_classes
from ssd_jax.errors import UserError
from ssd_jax.models.ssd import SSD
from ssd_jax.runs.config_file import load_config
from ssd_jax.runtime import sharding
from ssd_jax.training import train_step

BASELINE = ASSETS / "aot_baseline.json"
BASELINE_COMMAND = (
    "--target", "v5e:2x4", "configs/ssd300_voc0712.py", "--train.batch_size", "256", "--model.dtype", "bfloat16",
)  # fmt: skip

# ---- targets ----


@pytest.mark.parametrize(
    ("name", "chip", "count"),
    [
        ("v5e:2x4", "v5e", 8),
        ("v5e:1x1", "v5e", 1),
        ("v5p:2x2x2", "v5p", 8),
        ("v6e:4x4", "v6e", 16),
        ("h100x8", "h100", 8),
        ("a100x1", "a100", 1),
        ("h100x32", "h100", 32),
    ],
)
def test_parse_target(name: str, chip: str, count: int):
    target = parse_target(name)
    assert (target.name, target.chip_name, target.count, target.chip) == (name, chip, count, CHIPS[chip])


@pytest.mark.parametrize(
    "name", ["", "v5e", "v5e:8", "v5ex8", "v3:2x4", "h100", "h100:2x4", "h100x", "h100x2x4", "tpux8", "V5E:2x4"]
)
def test_parse_target_refuses_unknown_targets(name: str):
    with pytest.raises(UserError, match=r"--target .*v5e:2x4.*h100x8"):
        parse_target(name)


def test_parse_target_refuses_impossible_sizes():
    for name in ("v5e:0x4", "h100x0"):
        with pytest.raises(UserError, match="no device"):
            parse_target(name)
    with pytest.raises(UserError, match="a multiple of 8"):
        parse_target("h100x12")


def test_chips_have_the_published_figures():
    """TFLOP/s of bfloat16 without sparsity, GB/s and GiB, written down a second time."""
    figures = {name: (c.bfloat16 / 1e12, c.bandwidth / 1e9, round(c.memory / GIB)) for name, c in CHIPS.items()}
    assert figures == {
        "v5e": (197, 819, 16),
        "v5p": (459, 2765, 95),
        "v6e": (918, 1640, 32),
        "h100": (989.5, 3350, 79),
        "a100": (312, 2039, 79),
    }


def test_gpu_target_config_needs_no_driver():
    described = targets.gpu_target_config("h100").splitlines()
    assert described[0] == "gpu_device_info {" and described.count("}") == 1
    # XLA looks for a driver if one of these is missing: openxla/xla#25919.
    assert "runtime_version { major: 12 minor: 8 }" in described
    assert "dnn_version_info { major: 9 minor: 8 }" in described
    assert "  cuda_compute_capability { major: 9 }" in described and "  core_count: 132" in described
    assert "  device_memory_size: 84942979072" in described


@pytest.mark.parametrize(("name", "install"), [("v5e:2x4", "jax[tpu]"), ("h100x8", "--no-deps jax-cuda12-plugin==")])
def test_target_devices_needs_the_compiler(name: str, install: str, monkeypatch: pytest.MonkeyPatch):
    def missing(package: str) -> str:
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(importlib.metadata, "version", missing)
    with pytest.raises(UserError) as error:
        targets.target_devices(parse_target(name))
    assert name in str(error.value) and "not installed" in str(error.value) and install in str(error.value)


def test_suppress_stderr_shows_output_only_on_failure():
    program = """
import os, sys
from ssd_jax.aot.quiet_compiler import suppress_stderr
with suppress_stderr():
    os.write(2, b"no accelerator")
print("between", file=sys.stderr)
with suppress_stderr():
    os.write(2, b"reason")
    raise SystemExit(3)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (3, "between\nreason")


# ---- FLOPs ----


@pytest.mark.parametrize(
    ("image", "kernel", "stride", "padding", "image_dilation", "kernel_dilation"),
    [
        (5, 3, 1, (1, 1), 1, 1),
        (19, 3, 1, (6, 6), 1, 6),
        (10, 3, 2, (1, 1), 1, 1),
        (5, 3, 1, (1, 2), 2, 1),
        (1, 3, 1, (1, 1), 1, 1),
        (7, 4, 3, (0, 2), 2, 2),
        (6, 2, 1, (-1, 0), 1, 1),
    ],
)
def test_valid_taps_equals_a_convolution_of_ones(
    image: int, kernel: int, stride: int, padding: tuple[int, int], image_dilation: int, kernel_dilation: int
):
    # In a convolution of ones with ones, each output is the number of taps that meet an element.
    met = lax.conv_general_dilated(
        jnp.ones((1, 1, image)), jnp.ones((1, 1, kernel)), (stride,), [padding], (image_dilation,), (kernel_dilation,)
    )
    counted = valid_taps(
        image,
        kernel,
        met.shape[-1],
        stride=stride,
        low_padding=padding[0],
        image_dilation=image_dilation,
        kernel_dilation=kernel_dilation,
    )
    assert counted == int(met.sum())


def flops(f, *shapes: tuple[int, ...], devices: int = 1) -> float:
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count_flops(jax.make_jaxpr(f)(*arrays), devices)


def test_count_flops_of_matrix_products():
    product = 2 * 8 * 16 * 32
    assert flops(jnp.matmul, (8, 16), (16, 32)) == product
    assert flops(jax.jit(jnp.matmul), (8, 16), (16, 32), devices=4) == product / 4
    assert flops(partial(jnp.einsum, "bij,bjk->bik"), (5, 8, 16), (5, 16, 32)) == 5 * product
    # The backward pass has a product for each factor, and the forward pass one more.
    assert flops(jax.grad(lambda a, b: (a @ b).sum(), argnums=(0, 1)), (8, 16), (16, 32)) == 3 * product
    assert flops(lambda a: lax.scan(lambda c, _: (c @ a, None), a, length=7)[0], (8, 8)) == 7 * 2 * 8**3
    assert flops(lambda a: lax.fori_loop(0, a[0, 0].astype(int), lambda i, c: c @ a, a), (8, 8)) == 2 * 8**3
    branches = lambda a: lax.cond(a[0, 0] > 0, lambda: a @ a @ a, lambda: a @ a)  # noqa: E731
    assert flops(branches, (8, 8)) == 2 * 2 * 8**3


def test_count_flops_in_shard_map():
    mesh = AbstractMesh((4,), ("data",), axis_types=(AxisType.Auto,))
    split = PartitionSpec("data")
    f = jax.shard_map(jax.vmap(lambda a: a @ a), mesh=mesh, in_specs=split, out_specs=split)
    assert flops(lambda a: f(a) + a @ a, (12, 8, 8), devices=4) == 2 * (12 / 4) * 2 * 8**3


def test_count_flops_of_convolutions():
    def conv(x, kernel):
        return lax.conv_general_dilated(x, kernel, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"))

    # Along a side of 4 with padding 1: the outer two cells have 2 taps, the inner two 3.
    forward = 2 * (2 * 2 + 2 * 3) ** 2 * 6 * 5 * 7
    assert flops(conv, (6, 4, 4, 5), (3, 3, 5, 7)) == forward
    loss = lambda x, kernel: conv(x, kernel).sum()  # noqa: E731
    assert flops(jax.grad(loss, argnums=1), (6, 4, 4, 5), (3, 3, 5, 7)) == 2 * forward, "images need no gradient"
    assert flops(jax.grad(loss, argnums=(0, 1)), (6, 4, 4, 5), (3, 3, 5, 7)) == 3 * forward
    strided = partial(lax.conv_general_dilated, window_strides=(2,), padding=[(1, 1)])
    assert flops(jax.grad(lambda x, k: strided(x, k).sum(), argnums=(0, 1)), (1, 1, 4), (1, 1, 3)) == 3 * 2 * (2 + 3)
    grouped = partial(lax.conv_general_dilated, window_strides=(1,), padding="VALID", feature_group_count=2)
    assert flops(grouped, (1, 4, 3), (6, 2, 3)) == 2 * 6 * 2 * 3


# Layers of SSD300: side of the input, channels in and out, kernel, stride, padding, dilation, by Caffe's names. From
# figure 2 of the paper, independent of ssd_jax/models.
SSD300_LAYERS = {
    "conv1_1": (300, 3, 64, 3, 1, 1, 1),
    "conv1_2": (300, 64, 64, 3, 1, 1, 1),
    "conv2_1": (150, 64, 128, 3, 1, 1, 1),
    "conv2_2": (150, 128, 128, 3, 1, 1, 1),
    "conv3_1": (75, 128, 256, 3, 1, 1, 1),
    "conv3_2": (75, 256, 256, 3, 1, 1, 1),
    "conv3_3": (75, 256, 256, 3, 1, 1, 1),
    "conv4_1": (38, 256, 512, 3, 1, 1, 1),
    "conv4_2": (38, 512, 512, 3, 1, 1, 1),
    "conv4_3": (38, 512, 512, 3, 1, 1, 1),
    "conv5_1": (19, 512, 512, 3, 1, 1, 1),
    "conv5_2": (19, 512, 512, 3, 1, 1, 1),
    "conv5_3": (19, 512, 512, 3, 1, 1, 1),
    "fc6": (19, 512, 1024, 3, 1, 6, 6),
    "fc7": (19, 1024, 1024, 1, 1, 0, 1),
    "conv6_1": (19, 1024, 256, 1, 1, 0, 1),
    "conv6_2": (19, 256, 512, 3, 2, 1, 1),
    "conv7_1": (10, 512, 128, 1, 1, 0, 1),
    "conv7_2": (10, 128, 256, 3, 2, 1, 1),
    "conv8_1": (5, 256, 128, 1, 1, 0, 1),
    "conv8_2": (5, 128, 256, 3, 1, 0, 1),
    "conv9_1": (3, 256, 128, 1, 1, 0, 1),
    "conv9_2": (3, 128, 256, 3, 1, 0, 1),
    # Boxes per cell times 4 offsets and 21 logits.
    "conv4_3_norm_mbox": (38, 512, 4 * 25, 3, 1, 1, 1),
    "fc7_mbox": (19, 1024, 6 * 25, 3, 1, 1, 1),
    "conv6_2_mbox": (10, 512, 6 * 25, 3, 1, 1, 1),
    "conv7_2_mbox": (5, 256, 6 * 25, 3, 1, 1, 1),
    "conv8_2_mbox": (3, 256, 4 * 25, 3, 1, 1, 1),
    "conv9_2_mbox": (1, 256, 4 * 25, 3, 1, 1, 1),
}


def forward_flops(side: int, inputs: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Return two FLOPs, a multiply-add, for each tap inside the image."""
    first_taps = range(-padding, side + padding - dilation * (kernel - 1), stride)
    taps = sum(0 <= first + dilation * tap < side for first in first_taps for tap in range(kernel))
    return 2 * taps**2 * inputs * outputs


@pytest.mark.slow
def test_count_flops_of_ssd300():
    """Without taps on padding, and without the gradient of the image, which is not needed."""
    by_layer = {name: forward_flops(*layer) for name, layer in SSD300_LAYERS.items()}
    expected = 32 * (3 * sum(by_layer.values()) - by_layer["conv1_1"])
    assert expected == pytest.approx(5.744e12, rel=1e-4)

    model = SSD(load_config(ROOT / "configs" / "ssd300_voc0712.py").model)
    images = jax.ShapeDtypeStruct((32, 300, 300, 3), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]

    def loss(params, images):
        return sum(output.sum() for output in model.apply({"params": params}, images))

    assert count_flops(jax.make_jaxpr(jax.grad(loss))(params, images), 1) == expected


# ---- HLO ----

HLO = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%fused (p: f32[8]) -> f32[8] {
  ROOT %add.1 = f32[8]{0} add(%p, %p), metadata={op_name="jit(step)/psum = f32[9] all-reduce(x)"}
}

%scatter_computation (q: bf16[64,16]) -> bf16[8,16] {
  ROOT %reduce-scatter.3 = bf16[8,16]{1,0:T(8,128)(2,1)} reduce-scatter(%q), channel_id=3, to_apply=%region
}

ENTRY %main (a: f32[8]) -> f32[] {
  %all-reduce.79 = (bf16[38,38,84]{2,1,0:T(8,128)(2,1)S(1)}, f32[512]{0:T(512)}, /*index=2*/pred[3]{0}) all-reduce(%x, %y, /*index=2*/%z), channel_id=4, to_apply=%region
  %all-reduce-start.1 = f32[3,3,512,512]{3,2,1,0} all-reduce-start(%g), channel_id=1, to_apply=%region
  %all-reduce-done.1 = f32[3,3,512,512]{3,2,1,0} all-reduce-done(%all-reduce-start.1)
  %all-gather-start = ((f32[4]{0}, s32[2]{0}), (f32[32]{0}, s32[16]{0})) all-gather-start(%b, %c), dimensions={0}
  %collective-permute-start = (bf16[6]{0}, bf16[6]{0}, u32[]{:T(128)S(2)}, u32[]{:T(128)S(2)}) collective-permute-start(%b)
  %all-reduce-scatter = f32[8]{0} fusion(%b), kind=kOutput, calls=%fused
  ROOT %all-reduce = s32[]{:T(128)} all-reduce(%n), channel_id=5, to_apply=%region
  %send.4 = (f32[7]{0}, u32[], token[]) send(%b, %token), channel_id=9
}
"""  # noqa: E501

HOST_HLO = """\
  %send.1 = (f32[]{:T(128)}, u32[]{:T(128)}, token[]) send(%x, %t), channel_id=7, is_host_transfer=true
  %send-done.1 = token[] send-done(%send.1), channel_id=7, is_host_transfer=true
  %infeed = ((f32[3]{0}), token[]) infeed(%t)
  %outfeed = token[] outfeed(%x, %t)
  %call.1 = (f32[4]{0}) custom-call(%x), custom_call_target="xla_ffi_python_gpu_callback", api_version=API_VERSION_TYPED_FFI
  %call.2 = f32[4]{0} custom-call(%x), custom_call_target="MoveToHost"
  %call.3 = f32[4]{0} custom-call(%x), custom_call_target="__cudnn$convForward"
  %copy.9 = f32[4]{0:T(128)S(5)} copy(%x)
  %copy.8 = f32[4]{0:T(128)S(1)} copy(%x)
"""  # noqa: E501


def test_collectives_in_hlo():
    assert find_collectives(HLO) == (
        Collective("reduce-scatter", ("bf16[8,16]",)),
        Collective("all-reduce", ("bf16[38,38,84]", "f32[512]", "pred[3]")),
        Collective("all-reduce", ("f32[3,3,512,512]",)),
        Collective("all-gather", ("f32[32]", "s32[16]")),
        Collective("collective-permute", ("bf16[6]",)),
        Collective("all-reduce", ("s32[]",)),
        Collective("send", ("f32[7]",)),
    )
    assert find_collectives(HLO)[1].size == 38 * 38 * 84 * 2 + 512 * 4 + 3
    assert find_host_transfers(HLO) == ()


def test_host_transfers_in_hlo():
    expected = ("send", "infeed", "outfeed", "xla_ffi_python_gpu_callback", "MoveToHost", "copy in the host's memory")
    assert find_host_transfers(HOST_HLO) == expected
    assert find_collectives(HOST_HLO) == ()


def test_bytes_of_arrays():
    sizes = {"f32[3,3,512,512]": 9437184, "bf16[7]": 14, "s32[]": 4, "pred[3]": 3, "f8e4m3fn[5]": 5, "s4[4]": 4}
    assert {array: array_bytes(array) for array in sizes} == sizes


# ---- roofline and memory ----


@pytest.mark.parametrize(
    ("chip", "dtype", "flops", "bytes_accessed", "compute", "traffic", "seconds"),
    [
        ("v5e", "bfloat16", 197e12, 1638e9, 1.0, 2.0, 2.0),
        ("v5e", "float32", 394e12, 819e9, 2.0, 1.0, 2.0),
        ("h100", "bfloat16", None, None, 0.1, None, 0.1),
        ("h100", "float32", None, None, 98.95 / 494.5, None, 98.95 / 494.5),
        # The compiler counts a loop's body once, so its count can be too small.
        ("v5e", "bfloat16", 1e12, 819e6, 98.95 / 197, 1e-3, 98.95 / 197),
    ],
)
def test_roofline(
    chip: str,
    dtype: str,
    flops: float | None,
    bytes_accessed: float | None,
    compute: float,
    traffic: float | None,
    seconds: float,
):
    limit = roofline(Costs(model_flops=98.95e12, flops=flops, bytes_accessed=bytes_accessed), CHIPS[chip], dtype)
    assert limit.compute == pytest.approx(compute) and limit.seconds == pytest.approx(seconds)
    assert limit.traffic == (None if traffic is None else pytest.approx(traffic))


# libtpu 0.0.42.
TEMPORARIES = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (46.96G) exceeds "
    "available HBM (15.75G)."
)
# LargeWorldModel/LWM#60.
IN_ALL = (
    "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 21.95G of "
    "15.48G hbm.\n Exceeded hbm capacity by 6.47G.\n\nTotal hbm usage >= 22.47G:"
)


@pytest.mark.parametrize(
    ("message", "problem"),
    [
        (TEMPORARIES, "does not fit: needs 47.0 of 15.8 GiB"),
        (IN_ALL, "does not fit: needs 21.9 of 15.5 GiB"),
        ("RESOURCE_EXHAUSTED: Attempting to allocate", "does not fit: the compiler ran out of the device's memory"),
    ],
)
def test_read_out_of_memory(message: str, problem: str):
    costs = read_out_of_memory(RuntimeError(message), 1e9, 2.0)
    assert costs is not None and (costs.model_flops, costs.compile_seconds, costs.memory) == (1e9, 2.0, None)
    assert memory_problem(costs, CHIPS["v5e"]) == problem
    assert read_out_of_memory(RuntimeError("INTERNAL: Used 2G of 1G hbm"), 1e9, 2.0) is None


def test_memory_problem_at_the_limit_of_the_chip():
    def problem(temporaries: int) -> str | None:
        return memory_problem(Costs(1.0, memory=Memory(3 * GIB, temporaries, 2 * GIB, 2 * GIB)), CHIPS["v5e"])

    assert problem(13 * GIB) is None, "fits exactly"
    assert problem(13 * GIB + 1) == "does not fit: needs 16.0 of 16.0 GiB"


# ---- against stored costs ----


def collective_sizes(costs: Costs) -> dict[str, tuple[int, int]]:
    """Return the number and the bytes of the collectives of each kind."""
    kinds = {c.kind for c in costs.collectives}
    sizes = {kind: [c.size for c in costs.collectives if c.kind == kind] for kind in kinds}
    return {kind: (len(of_kind), sum(of_kind)) for kind, of_kind in sizes.items()}


def increases(old: Costs, now: Costs) -> list[str]:
    """Return the costs that increased, with the old and the new number."""
    assert old.memory and now.memory and old.flops and now.flops and old.bytes_accessed and now.bytes_accessed
    pairs = {
        "FLOPs": (old.flops * 1.001, now.flops),
        "bytes accessed": (old.bytes_accessed * 1.001, now.bytes_accessed),
        "memory": (old.memory.peak * 1.01, now.memory.peak),
        "transfers to the host": (len(old.host_transfers), len(now.host_transfers)),
    }
    before = collective_sizes(old)
    for kind, (number, size) in collective_sizes(now).items():
        most, largest = before.get(kind, (0, 0))
        pairs |= {f"number of {kind}": (most, number), f"bytes of {kind}": (largest, size)}
    return [f"{what}: {then} -> {after}" for what, (then, after) in pairs.items() if after > then]


def test_increases_names_every_cost():
    old = Costs(
        1e9, 1e9, 1e9, Memory(100, 100, 0, 0), collectives=(Collective("all-reduce", ("f32[10]", "f32[]")),) * 2
    )

    def changed(**fields) -> list[str]:
        return [line.partition(":")[0] for line in increases(old, msgspec.structs.replace(old, **fields))]

    assert changed() == changed(flops=0.5e9, bytes_accessed=1.0005e9, memory=Memory(100, 101, 0, 0)) == []
    assert changed(flops=1.002e9) == ["FLOPs"] and changed(bytes_accessed=1.002e9) == ["bytes accessed"]
    assert changed(memory=Memory(100, 103, 0, 0)) == ["memory"]
    assert changed(host_transfers=("outfeed",)) == ["transfers to the host"]
    assert changed(collectives=(Collective("all-reduce", ("f32[23]",)),)) == ["bytes of all-reduce"], "fewer, larger"
    assert changed(collectives=(Collective("all-reduce", ("f32[]",)),) * 3) == ["number of all-reduce"]
    gathered = (*old.collectives, Collective("all-gather", ("f32[8]",)))
    assert changed(collectives=gathered) == ["number of all-gather", "bytes of all-gather"]


def test_baseline_has_the_options_of_its_command():
    stored = msgspec.json.decode(BASELINE.read_bytes(), type=programs.Report)
    assert (stored.target, stored.batch_size, stored.dtype) == ("v5e:2x4", 256, "bfloat16")
    assert (stored.image_size, stored.num_classes, stored.images_per_device) == (300, 21, 32)
    assert set(stored.programs) == {"train", "detect"}


# ---- the report ----


def report(target: str, **costs) -> programs.Report:
    return programs.Report(
        target=target, devices=8, config="ssd300_voc0712", image_size=300, num_classes=21, dtype="bfloat16",
        batch_size=256, jax="0.10.2", compiler="libtpu 0.0.42", programs={"train": Costs(**costs)},
    )  # fmt: skip


ON_TPU = report(
    "v5e:2x4",
    model_flops=5.744e12,
    flops=5.91e12,
    bytes_accessed=32.76e9,
    memory=Memory(2 * GIB, 4 * GIB, GIB, GIB),
    collectives=(
        Collective("all-reduce", ("s32[]",)),
        Collective("all-reduce", ("f32[64]", "bf16[3,3,512,512]")),
    ),
    compile_seconds=140.2,
)
ON_GPU = report("h100x8", model_flops=5.744e12, memory=Memory(2 * GIB, 5 * GIB, GIB, GIB), host_transfers=("outfeed",))
TOO_LARGE = report("v5e:2x4", model_flops=5.744e12, needed_memory=20 * GIB, available_memory=15.75 * GIB)


def test_format_report():
    # 32.76e9 / 819e9 is 40 ms: 32 images in it are 800 a second. 5.91e12 / 197e12 is 30 ms.
    assert format_report(ON_TPU).splitlines() == [
        "ssd300_voc0712 on v5e:2x4: 8 x TPU v5e, 300 px, 21 classes with background, bfloat16, 256 images, "
        "32 per device",
        "jax 0.10.2, libtpu 0.0.42. Costs of one device:",
        "",
        "training step (compiled in 140 s)",
        "  FLOPs           5.91e+12, 1.029 times the 5.744e+12 of convolutions and matrix products",
        "  bytes accessed  32.8 GB",
        "  memory          6.00 GiB of 16.0: arguments 2.00 + temporaries 4.00 + outputs 1.00 - aliased 1.00",
        "  collectives     all-reduce of 4.72 MB: bf16[3,3,512,512] and 1 more",
        "                  all-reduce of 4 bytes: s32[]",
        "  host transfers  none",
        "  max. images/s   800, 6400 on all 8: FLOPs take 30.0 ms, bytes take 40.0 ms",
    ]


def test_format_report_without_figures_of_the_compiler():
    rows = dict(line.strip().split("  ", 1) for line in format_report(ON_GPU).splitlines()[4:])
    assert "5.744e+12" in rows["FLOPs"] and "bytes accessed" not in rows
    assert rows["host transfers"].strip() == "outfeed" and rows["collectives"].strip() == "none"
    assert "7.00 GiB" in rows["memory"] and "cuDNN" in rows["memory"]
    assert rows["max. images/s"].strip().startswith("5513, 44101 on all 8")
    assert "needs 20.0 of 15.8 GiB" in format_report(TOO_LARGE).splitlines()[-1]


def test_table_command_formats_written_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    files = []
    for number, written in enumerate((ON_TPU, ON_GPU, TOO_LARGE)):
        files.append(tmp_path / f"{number}.json")
        files[-1].write_bytes(msgspec.json.encode(written))
    assert command("aot", "--table", *files) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows == format_table([ON_TPU, ON_GPU, TOO_LARGE]).splitlines() and len(rows) == 5
    assert len({row.count("|") for row in rows}) == 1
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
    network, no_room = "SSD300, 21 classes, bfloat16", "does not fit: needs 20.0 of 15.8 GiB"
    assert cells == [
        [network, "32", "8 x TPU v5e", "training step", "5.91e+12", "32.8 GB", "6.0 GiB", "4.72 MB", "800"],
        [
            network,
            "32",
            "8 x H100 SXM",
            "training step",
            "5.74e+12 (in the program)",
            "unknown",
            "7.0 GiB",
            "0 bytes",
            "5513",
        ],
        [network, "32", "8 x TPU v5e", "training step", "5.74e+12 (in the program)", "unknown", no_room, "", ""],
    ]


@pytest.mark.parametrize("program", programs.PROGRAMS)
def test_compile_program_for_the_local_device(program: programs.Program):
    """Compile for the CPU of this machine."""
    config = with_classes(load_config(Path(TINY)), 3)
    mesh = sharding.make_mesh(jax.devices("cpu")[:1])
    costs = programs.compile_program(config, mesh, program, "cpu")
    assert costs.memory is not None and costs.flops and costs.bytes_accessed
    assert costs.model_flops > 4 * 64 * 64 * 9 * 3 * 8 * 2, "at least conv1_1 of 4 images"
    assert costs.flops > 0.95 * costs.model_flops, "XLA skips taps on padding"
    assert (costs.collectives, costs.host_transfers) == ((), ())
    canvases = 4 * 64 * 64 * 3
    parameters = sum(4 * leaf.size for leaf in jax.tree.leaves(train_step.state_shapes(config, mesh).params))
    assert costs.memory.arguments > parameters + canvases
    assert (costs.memory.aliased > 2 * parameters) == (program == "train"), (
        "the training step reuses the memory of its state"
    )


# ---- the command ----


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--target", "v9:2x4", TINY, "--classes", "3"], "--target v9:2x4"),
        ([TINY, "--classes", "3"], "--target"),
        (["--target", "v5e:2x4", TINY], "--classes"),
        (["--target", "v5e:2x4", TINY, "--classes", "0"], "--classes is 0"),
        (["--target", "v5e:2x4", "configs/ssd300_voc.py", "--classes", "3"], "--classes 3"),
        (["--target", "v5e:2x4"], "configs/shapes.py"),
        (["--target", "v5e:2x4", "nowhere.py"], "nowhere.py"),
        (["--table"], "--json"),
        (["--table", "nowhere.json"], "nowhere.json"),
        (["--table", TINY], "tiny_config.py"),
    ],
)
def test_wrong_arguments_exit_with_2(argv: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert command("aot", *argv) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and not captured.out


def test_help_lists_the_targets(capsys: pytest.CaptureFixture[str]):
    assert command("aot", "--help") == 0
    output = capsys.readouterr().out
    assert "--target" in output and "h100x8" in output


# ---- compilation for absent devices, which takes minutes ----


@pytest.fixture(scope="module")
def compilers() -> None:
    if os.environ.get("SSD_JAX_AOT") != "1":
        pytest.skip("compiles for minutes; run with SSD_JAX_AOT=1 or `make aot`")
    for package in ("libtpu", "jax-cuda12-pjrt"):
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            pytest.skip(f"needs {package}, which `make aot` installs")


def aot(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in a subprocess, because it sets jax up for absent devices."""
    return subprocess.run(
        [sys.executable, "-m", "ssd_jax.aot", *map(str, argv)],
        cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


def compiled_report(file: Path, *argv: str | Path) -> programs.Report:
    result = aot(*argv, "--json", file)
    assert result.returncode == 0, result.stderr
    assert all(line.startswith("Compiling the ") for line in result.stderr.splitlines()), "and no other output"
    written = msgspec.json.decode(file.read_bytes(), type=programs.Report)
    assert result.stdout == format_report(written) + "\n"
    return written


def test_ssd300_costs_have_not_increased(compilers: None, tmp_path: Path):
    """On v5e, 32 images on each of 8 devices, in bfloat16. Update the baseline after an intended change, or with
    another version of jax or libtpu:

        python -m ssd_jax.aot --target v5e:2x4 configs/ssd300_voc0712.py --train.batch_size 256 \\
            --model.dtype bfloat16 --json tests/assets/aot_baseline.json

    Do so in the environment of `make aot`, and state the old and the new numbers in the commit message.
    """
    before = msgspec.json.decode(BASELINE.read_bytes(), type=programs.Report)
    now = compiled_report(tmp_path / "now.json", *BASELINE_COMMAND)
    versions = f"stored with {before.jax} and {before.compiler}, now {now.jax} and {now.compiler}"
    assert set(now.programs) == set(before.programs) == {"train", "detect"}
    more = {name: increases(before.programs[name], costs) for name, costs in now.programs.items()}
    assert more == {"train": [], "detect": []}, versions
    assert all(costs.host_transfers == () for costs in now.programs.values())
    assert set(collective_sizes(now.programs["train"])) == {"all-reduce"}, "only those of gradients and scalars"
    assert collective_sizes(now.programs["detect"]) == {}, "images are independent"


def test_gpu_report_has_memory_and_collectives(compilers: None, tmp_path: Path):
    argv = ["--target", "h100x8", TINY, "--classes", "3", "--train.batch_size", "16"]
    written = compiled_report(tmp_path / "h100.json", *argv)
    assert (written.devices, written.num_classes, written.compiler.split()[0]) == (8, 4, "jax-cuda12-pjrt")
    for costs in written.programs.values():
        assert costs.flops is None and costs.bytes_accessed is None, "if XLA reports them now, so can the report"
        assert costs.memory is not None and costs.memory.peak > 0 and costs.host_transfers == ()
    assert set(collective_sizes(written.programs["train"])) == {"all-reduce"}
    assert collective_sizes(written.programs["detect"]) == {}


def test_program_that_does_not_fit(compilers: None):
    canvases = ["--data.max_image_size", "20000", "--train.batch_size", "16"]  # 19.2 GB
    result = aot("--target", "v5e:1x1", TINY, "--classes", "3", *canvases, "--only", "detect")
    assert result.returncode == 0, result.stderr
    assert "does not fit: needs" in result.stdout and "of 15.8 GiB" in result.stdout


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--target", "v5e:3x4", TINY, "--classes", "3"), "error: --target v5e:3x4: INVALID_ARGUMENT"),
        (("--target", "v5e:2x4", TINY, "--classes", "3"), "error: train.batch_size"),
        (("--target", "h100x16", TINY, "--classes", "3"), "error: train.batch_size"),
    ],
)
def test_targets_that_the_compiler_refuses(argv: tuple[str, ...], message: str, compilers: None):
    result = aot(*argv)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(message) and len(result.stderr.splitlines()) == 1, result.stderr
