"""Tests of finding collectives, host transfers and array sizes in HLO text."""

from ssd_jax.aot.compiled import (
    Collective,
    count_array_bytes,
    find_collectives,
    find_host_transfers,
)

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


def test_find_collectives_lists_collectives_with_their_arrays():
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


def test_find_host_transfers_lists_opcodes_and_call_targets():
    expected = ("send", "infeed", "outfeed", "xla_ffi_python_gpu_callback", "MoveToHost", "copy in host memory")
    assert find_host_transfers(HOST_HLO) == expected
    assert find_collectives(HOST_HLO) == ()


def test_count_array_bytes_returns_the_size_of_an_hlo_type():
    sizes = {"f32[3,3,512,512]": 9437184, "bf16[7]": 14, "s32[]": 4, "pred[3]": 3, "f8e4m3fn[5]": 5, "s4[4]": 4}
    assert {array: count_array_bytes(array) for array in sizes} == sizes
