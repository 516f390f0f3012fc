"""Machine code is split into setup, main loops and epilogue, and its instructions are told apart."""

from __future__ import annotations

import pytest

from donod_fast.kernels.triton_backend.machine_code import Count, count, parse_amdgcn, parse_sass
from donod_fast.kernels.triton_backend.occupancy import programs_per_multiprocessor


def sass(*lines: str) -> Count:
    """Count a listing; a line is a guard and an instruction, and ``>3`` is the address of the fourth line."""
    text = ["\t\tFunction : kernel"]
    for i, line in enumerate([*lines, f"BRA >{len(lines)}", "NOP"]):
        words = [f"{16 * int(word[1:]):#x}" if word.startswith(">") else word for word in line.split()]
        text.append(f"        /*{16 * i:04x}*/    {' '.join(words)} ;    /* 0x0000000000007918 */")
        text.append("                                                       /* 0x000fc00000000000 */")
    return count(parse_sass("\n".join(text)))


def test_an_epilogue_after_the_loop() -> None:
    """As in the logits kernel: products, then exponentials and stores."""
    found = sass(
        "S2R R0, SR_TID.X",
        "LDGSTS.E.BYPASS.128 [R5], desc[UR4][R2.64]",
        "LDGSTS.E [R5], desc[UR4][R2.64], !P0",
        "BAR.SYNC.DEFER_BLOCKING 0x0",  # 3: the loop
        "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR4], R24, gsb0",
        "LDS.64 R8, [R3]",
        "@P0 BRA >3",
        "MUFU.EX2 R4, R5",
        "DADD R4, R4, R6",
        "F2F.F64.F32 R4, R5",
        "STS.128 [R2], R4",
        "LDSM.16.M88.4 R4, [R2]",
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "LDG.E.128 R4, desc[UR4][R2.64]",
        "LDG.E.U16 R4, desc[UR4][R2.64]",
        "@!P1 STG.E desc[UR4][R2.64], R4",
        "EXIT",
    )
    assert (found.whole.instructions, found.setup.instructions) == (17, 3)
    assert [loop.instructions for loop in found.loops] == [4]
    assert (found.loops[0].barriers, found.loops[0].shared_bytes) == (1, 8)
    end = found.epilogue
    assert (end.instructions, end.special, end.float64, end.barriers, end.shared_bytes) == (10, 1, 2, 1, 32)
    assert found.matrix == {"HGMMA": 1}
    assert found.asynchronous == {"LDGSTS.128": 1, "LDGSTS.32": 1}
    assert (found.loads, found.stores) == ({16: 1, 2: 1}, {4: 1})


def test_an_epilogue_inside_the_loop() -> None:
    """As in the direct kernel on sm_100: one warp multiplies, a wait repeats, a sample ends under a branch."""
    found = sass(
        "@P6 EXIT",
        "UTMALDG.2D [UR8], [UR4]",
        "@P2 BRA >4",  # 2: the loop; most warps skip the product
        "UTCHMMA gdesc[UR4], gdesc[UR6], tmem[UR13], tmem[UR42], idesc[UR43], UPT",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P2, [UR31], R8",
        "@!P2 BRA >16",
        "FADD R2, R2, R3",
        "BRA.U !UP3, >13",  # the sample goes on
        "LDTM.x32 R4, tmem[UR7]",
        "MUFU.RCP R4, R4",
        "FMUL R4, R4, R5",
        "BAR.SYNC.DEFER_BLOCKING 0x0",
        "STG.E desc[UR4][R2.64], R4",
        "IADD3 R1, R1, 0x1, RZ",
        "@P0 BRA >2",
        "EXIT",
        "SYNCS.PHASECHK.TRANS64.TRYWAIT P2, [UR31], R8",  # 16: wait again
        "@!P2 BRA >16",
        "BRA >6",
    )
    assert found.setup.instructions == 2
    assert [loop.instructions for loop in found.loops] == [11]  # with the wait and the product
    assert (found.epilogue.instructions, found.epilogue.special, found.epilogue.barriers) == (5, 1, 1)
    assert found.matrix == {"UTCHMMA": 1} and found.asynchronous == {"UTMALDG": 1}
    assert found.whole.instructions == 19


def test_two_main_loops_and_a_search_before_them() -> None:
    """As in the Gram kernel: a bisection is no main loop, the way from the first product to the second is epilogue."""
    found = sass(
        "IADD3 R1, R1, 0x1, RZ",
        "@P0 BRA >0",
        "HMMA.16816.F32.BF16 R4, R8, R10, R4",
        "@P1 BRA >2",
        "MOV R1, R2",
        "HMMA.16816.F32.BF16 R4, R8, R10, R4",
        "FADD R1, R2, R3",
        "@P1 BRA >5",
        "RED.E.ADD.F32.FTZ.RN.STRONG.GPU [R2.64], R4",
        "EXIT",
    )
    assert [loop.instructions for loop in found.loops] == [2, 3]
    assert (found.setup.instructions, found.epilogue.instructions) == (2, 3)
    assert found.matrix == {"HMMA": 2}


def test_the_longest_loop_counts_without_products_or_all_is_setup() -> None:
    found = sass(
        "MOV R1, R2",
        "FADD R1, R2, R3",
        "@P0 BRA >1",
        "FADD R1, R2, R3",
        "FADD R1, R2, R3",
        "@P0 BRA >3",
        "EXIT",
    )
    assert [loop.instructions for loop in found.loops] == [3] and found.epilogue.instructions == 1
    straight = sass("LDG.E R4, desc[UR4][R2.64]", "STG.E.64 desc[UR4][R2.64], R4", "EXIT")
    assert straight.loops == () and straight.setup == straight.whole and straight.whole.instructions == 3


def test_calls_and_meeting_points() -> None:
    """A function that returns is left out, and a call that does not return is a jump."""
    found = sass(
        "BSSY B0, >4",
        "@P0 BRA >3",
        "CALL.REL.NOINC >9",
        "BSYNC B0",
        "HMMA.16816.F32.BF16 R4, R8, R10, R4",
        "@P1 CALL.REL.NOINC >7",
        "BRA >4",
        "STG.E desc[UR4][R2.64], R4",
        "EXIT",
        "MUFU.RCP R4, R4",
        "RET.REL.NODEC R2 0x0",
    )
    assert found.whole.instructions == 9 and found.whole.special == 0
    assert [loop.instructions for loop in found.loops] == [3]
    assert (found.setup.instructions, found.epilogue.instructions) == (4, 2)


AMD = """
kernel:                          ; @kernel
; %bb.0:
	s_load_dwordx4 s[4:7], s[0:1], 0x0
	buffer_load_dwordx4 v1, s[4:7], 0 offen lds
	global_load_dwordx4 v[4:7], v[2:3], off
	s_cbranch_scc1 .LBB0_3
.LBB0_1:                                ; =>This Inner Loop Header: Depth=1
	s_barrier
	v_mfma_f32_32x32x8_bf16 v[16:31], v[92:93], v[78:79], v[16:31]
.Ltmp4:
	ds_read2st64_b64 v[4:7], v2 offset1:8
	ds_write_b128 v1, v[4:7]
	s_cbranch_vccnz .LBB0_1
; %bb.2:
	v_exp_f32_e32 v1, v1
	v_rcp_f64_e32 v[2:3], v[2:3]
	global_load_ushort v1, v[2:3], off
	global_load_dword v1, v[2:3], off
	global_store_dwordx2 v[2:3], v[4:5], off
.LBB0_3:
	s_endpgm
	.section	.rodata,"a",@progbits
	.amdhsa_kernel kernel
	s_nop 0
"""


def test_amdgcn() -> None:
    found = count(parse_amdgcn(AMD))
    assert (found.whole.instructions, found.setup.instructions, found.epilogue.instructions) == (15, 4, 6)
    assert [(loop.instructions, loop.barriers, loop.shared_bytes) for loop in found.loops] == [(5, 1, 32)]
    assert (found.epilogue.special, found.epilogue.float64) == (2, 1)
    assert found.matrix == {"MFMA": 1} and found.asynchronous == {"buffer_load_lds.128": 1}
    assert (found.loads, found.stores) == ({16: 1, 4: 1, 2: 1}, {8: 1})


def test_a_listing_without_instructions_is_refused() -> None:
    with pytest.raises(ValueError, match="no instructions"):
        count(parse_sass("cuobjdump fatal : no device code"))


@pytest.mark.parametrize(
    ("architecture", "warps", "registers", "shared_bytes", "columns", "expected"),
    [
        ("sm_90", 4, 240, 69632, 0, 2),  # registers: 512 // 240 warps a scheduler
        ("sm_90", 8, 213, 196608, 0, 1),  # shared memory
        ("sm_90", 4, 32, 0, 0, 16),  # warps
        ("sm_90", 4, 166, 75000, 0, 3),  # 166 registers count as 168
        ("sm_90", 4, 169, 75000, 0, 2),  # and 169 as 176
        ("sm_90", 1, 16, 0, 0, 32),  # programs
        ("sm_89", 4, 32, 0, 0, 12),  # 48 warps
        ("sm_89", 4, 32, 50 * 1024, 0, 1),  # 1 KiB of each program is reserved: 51 of 100
        ("sm_89", 8, 100, 100 * 1024, 0, 0),  # more than a program can have
        ("sm_100", 4, 64, 1024, 256, 2),  # tensor memory
        ("gfx942", 4, 222, 49152, 0, 1),  # LDS
        ("gfx942", 4, 222, 1024, 0, 2),  # 512 // 224 wavefronts a SIMD, as LLVM's "Occupancy: 2"
        ("gfx942", 4, 60, 512, 0, 8),
    ],
)
def test_programs_per_multiprocessor(
    architecture: str, warps: int, registers: int, shared_bytes: int, columns: int, expected: int
) -> None:
    found = programs_per_multiprocessor(
        architecture, warps=warps, registers=registers, shared_bytes=shared_bytes, tensor_columns=columns
    )
    assert found == expected
