"""Instructions of a compiled kernel: how many per tile, in the main loop and in the epilogue, and of which kind.

`compiled.py` writes them to ``compiled.csv``. The listing is split into basic blocks at its branches, and natural loops
are found from the blocks' dominators (Aho, Lam, Sethi and Ullman, Compilers, 2nd edition, section 9.6).

A **main loop** is an innermost loop with matrix instructions; loops without any (waiting for a barrier) do not count
as inner loops. Where no loop has matrix instructions, it is the innermost loop with the most instructions. Blocks of a
main loop that an iteration may skip, that have no matrix instruction and store to global memory, are not part of the
iteration but of the **epilogue**: the direct kernel ends a sample there. In all other kernels the epilogue is what
follows a main loop: blocks that it reaches, outside the main loops. The **setup** is the remainder that can be
reached, so it runs before the main loop. Where a kernel has no loop, everything is setup.

Counts are instructions of one warp (NVIDIA) or wavefront (AMD), each block once. A block that runs more than once
(an inner loop of the epilogue) or not at all (a branch) makes them differ from what a device executes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field

__all__ = ["Count", "Instruction", "count", "parse_amdgcn", "parse_sass"]


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction; ``target`` is the index of the instruction that it may jump to, if any."""

    name: str  # with its modifiers: LDG.E.128, v_mfma_f32_32x32x8_bf16
    operands: str = ""
    target: int | None = None
    falls_through: bool = True  # the next instruction may follow


@dataclass(frozen=True, slots=True)
class Part:
    """Counts of a region of the code."""

    instructions: int = 0
    special: int = 0  # on the special-function unit: exponentials, logarithms, reciprocals, roots
    float64: int = 0
    barriers: int = 0  # of all warps of a program
    shared_bytes: int = 0  # per thread, plain loads and stores of shared memory


@dataclass(frozen=True, slots=True)
class Count:
    """Counts of a kernel; the module's docstring defines the parts.

    Attributes:
        whole: everything that can be reached.
        setup, epilogue: once per tile (the direct kernel's epilogue: per tile and sample).
        loops: one iteration of each main loop, in the order of the listing.
        matrix: matrix instructions by kind, ``{"HGMMA": 4}``.
        asynchronous: copies from global to shared memory by width, ``{"LDGSTS.128": 16, "UTMALDG": 2}``.
        loads, stores: other accesses of global memory by bytes per thread, ``{16: 8}``.
    """

    whole: Part = Part()
    setup: Part = Part()
    loops: tuple[Part, ...] = ()
    epilogue: Part = Part()
    matrix: dict[str, int] = field(default_factory=dict)
    asynchronous: dict[str, int] = field(default_factory=dict)
    loads: dict[int, int] = field(default_factory=dict)
    stores: dict[int, int] = field(default_factory=dict)


_SASS_LINE = re.compile(r"^\s*/\*([0-9a-f]{4,})\*/\s+((?:@!?U?P\w+\s+)*)([A-Z][A-Za-z0-9_.]*)\s*([^;]*);", re.M)
_AMD_LINE = re.compile(r"^(?:(\.L\w+):|\t([a-z][a-z0-9_]+)(?:[ \t]+([^;\n]*))?)", re.M)
# NVIDIA: jumps by their first word. BSSY names the place where the warp's threads meet; BSYNC goes there.
_ENDS = ("EXIT", "RET", "BPT", "KILL")
_JUMPS = ("BRA", "JMP")


def parse_sass(listing: str) -> list[Instruction]:
    """Instructions of ``cuobjdump -sass`` output, without the padding after the last branch."""
    lines = [(int(at, 16), guard, name, operands.strip()) for at, guard, name, operands in _SASS_LINE.findall(listing)]
    index = {address: i for i, (address, *_) in enumerate(lines)}
    meeting: dict[str, int] = {}
    found = []
    for i, (address, guard, name, operands) in enumerate(lines):
        word = name.split(".")[0]
        places = re.findall(r"\b0x([0-9a-f]+)\b", operands)
        target = index.get(int(places[-1], 16)) if places and word in (*_JUMPS, "BSSY", "CALL") else None
        if word == "BSSY" and target is not None:
            meeting[operands.split(",")[0]] = target
            target = None
        if word == "BSYNC":
            target = meeting.get(operands)
        if word in _JUMPS and index.get(address) == target:
            lines = lines[:i]  # the listing ends with a branch to itself, then padding
            break
        # BRA.U UP0 and BRA P0 have their condition among the operands.
        conditional = bool(guard.strip()) or (word in _JUMPS and "," in operands)
        falls = conditional or word not in (*_ENDS, *_JUMPS, "BSYNC") or (word == "BSYNC" and target is None)
        found.append(Instruction(name, operands, target, falls))
    found = [_within(instruction, len(lines)) for instruction in found]
    # Some loops end in a call that does not return: a jump. A function that returns is left out: a rare case of a
    # division or root.
    return [i if i.target is None or not i.name.startswith("CALL") or not _returns(found, i.target)
            else Instruction(i.name, i.operands) for i in found]  # fmt: skip


def _returns(code: list[Instruction], start: int) -> bool:
    """Whether a return can be reached, apart from those of functions that are called."""
    todo, seen = [start], set()
    while todo:
        at = todo.pop()
        if at in seen or at >= len(code):
            continue
        seen.add(at)
        if code[at].name.startswith("RET"):
            return True
        if code[at].falls_through:
            todo.append(at + 1)
        if (target := code[at].target) is not None and not code[at].name.startswith("CALL"):
            todo.append(target)
    return False


def parse_amdgcn(listing: str) -> list[Instruction]:
    """Instructions of Triton's AMDGCN assembly, up to the end of the kernel."""
    labels: dict[str, int] = {}
    lines: list[tuple[str, str]] = []
    for label, name, operands in _AMD_LINE.findall(listing.split(".amdhsa_kernel")[0]):
        if label:
            labels[label] = len(lines)
        else:
            lines.append((name, operands.strip()))
    while lines and lines[-1][0] in ("s_nop", "s_code_end"):
        lines.pop()
    found = []
    for name, operands in lines:
        jumps = name.startswith(("s_cbranch", "s_branch"))
        falls = name not in ("s_branch", "s_endpgm", "s_setpc_b64", "s_trap")
        found.append(_within(Instruction(name, operands, labels.get(operands) if jumps else None, falls), len(lines)))
    return found


def _within(instruction: Instruction, length: int) -> Instruction:
    """Forget a target past the end."""
    if instruction.target is not None and instruction.target >= length:
        return Instruction(instruction.name, instruction.operands, None, instruction.falls_through)
    return instruction


_MATRIX = ("HMMA", "IMMA", "QMMA", "OMMA", "HGMMA", "IGMMA", "QGMMA", "UTCHMMA", "UTCIMMA", "UTCQMMA", "UTCMMA")


def matrix_kind(name: str) -> str | None:
    """Kind of a matrix instruction (``"HGMMA"``, ``"MFMA"``), or None."""
    if name.startswith(("v_mfma", "v_smfmac")):
        return "MFMA"
    word = name.split(".")[0]
    return word if word in _MATRIX else None


def copy_kind(instruction: Instruction) -> str | None:
    """Kind and width in bits of an asynchronous copy from global to shared memory, or None."""
    name = instruction.name
    word, *modifiers = name.split(".")
    if word in ("UTMALDG", "UBLKCP"):
        return word
    if word == "LDGSTS":
        return "LDGSTS." + next((m for m in modifiers if m in ("64", "128")), "32")
    if name.startswith("global_load_lds") or (name.startswith("buffer_load") and " lds" in instruction.operands):
        return f"{name.split('_')[0]}_load_lds.{8 * _amd_bytes(name)}"
    return None


def access_bytes(instruction: Instruction) -> tuple[str, int] | None:
    """Kind (``"load"``, ``"store"``, ``"shared"``) and bytes per thread of a plain access of memory, or None."""
    name = instruction.name
    if name.startswith(("global_", "buffer_", "flat_")):
        kind = "load" if "_load" in name else "store" if "_store" in name else None
        return (kind, _amd_bytes(name)) if kind and copy_kind(instruction) is None else None
    if name.startswith(("ds_read", "ds_write")):
        return "shared", _amd_bytes(name) * (2 if re.search(r"(read|write)2", name) else 1)
    word, *modifiers = name.split(".")
    if word in ("LDSM", "STSM"):
        return "shared", 4 * int(next((m for m in modifiers if m in ("2", "4")), "1"))
    kind = {"LDG": "load", "LD": "load", "STG": "store", "ST": "store", "RED": "store", "REDG": "store",
            "LDS": "shared", "STS": "shared"}.get(word)  # fmt: skip
    if kind is None:
        return None
    width = {"U8": 1, "S8": 1, "U16": 2, "S16": 2, "64": 8, "128": 16, "256": 32}
    return kind, next((width[m] for m in modifiers if m in width), 4)


def _amd_bytes(name: str) -> int:
    if match := re.search(r"dwordx(\d)", name):
        return 4 * int(match[1])
    if match := re.search(r"_[bui](8|16|32|64|96|128)\b", name):
        return int(match[1]) // 8
    return 1 if "byte" in name else 2 if "short" in name else 4


_AMD_SPECIAL = re.compile(r"v_(exp|log|rcp|rcp_iflag|rsq|sqrt|sin|cos)_")
_SASS_FLOAT64 = re.compile(r"(D(ADD|MUL|FMA|SETP|MNMX)\b|F2F\.\w*F64|F2F\.F64|I2F\.F64|F2I\.\w*F64|FRND\.F64)")


def _part(instructions: list[Instruction]) -> Part:
    special = float64 = barriers = shared = 0
    for instruction in instructions:
        name = instruction.name
        special += name.startswith("MUFU") or _AMD_SPECIAL.match(name) is not None
        float64 += _SASS_FLOAT64.match(name) is not None or (name.startswith("v_") and "_f64" in name)
        barriers += name.startswith(("BAR.", "s_barrier"))
        access = access_bytes(instruction)
        shared += access[1] if access and access[0] == "shared" else 0
    return Part(len(instructions), special, float64, barriers, shared)


@dataclass(frozen=True, slots=True)
class _Block:
    start: int
    stop: int
    next: tuple[int, ...]


def _blocks(code: list[Instruction]) -> list[_Block]:
    """Basic blocks; ``next`` are indices of blocks."""
    leaders = {0}
    for i, instruction in enumerate(code):
        if instruction.target is not None:
            leaders.add(instruction.target)
        if (instruction.target is not None or not instruction.falls_through) and i + 1 < len(code):
            leaders.add(i + 1)
    starts = sorted(leaders)
    number = {start: block for block, start in enumerate(starts)}
    found = []
    for start, stop in zip(starts, [*starts[1:], len(code)], strict=True):
        last = code[stop - 1]
        following = {number[last.target]} if last.target is not None else set()
        if last.falls_through and stop < len(code):
            following.add(number[stop])
        found.append(_Block(start, stop, tuple(sorted(following))))
    return found


def _reached(blocks: list[_Block], begin: set[int], without: frozenset[int] = frozenset()) -> set[int]:
    """Blocks that can be reached from ``begin`` (included) without entering ``without``."""
    todo, found = [b for b in begin if b not in without], set()
    while todo:
        block = todo.pop()
        if block not in found:
            found.add(block)
            todo += [b for b in blocks[block].next if b not in without]
    return found


def _loops(blocks: list[_Block]) -> dict[int, set[int]]:
    """Natural loops: their blocks by header. Loops that share a header are one."""
    everything = _reached(blocks, {0})
    # A header dominates the end of its loop: without the header, the end cannot be reached from the entry.
    found: dict[int, set[int]] = {}
    for end in everything:
        for header in blocks[end].next:
            if header != 0 and end in _reached(blocks, {0}, frozenset({header})):
                continue
            body, todo = {header}, [end]
            while todo:
                block = todo.pop()
                if block not in body:
                    body.add(block)
                    todo += [b for b in everything if block in blocks[b].next]
            found.setdefault(header, set()).update(body)
    return found


def _optional_stores(code: list[Instruction], blocks: list[_Block], header: int, body: set[int]) -> set[int]:
    """Blocks of a loop's epilogue: skipped by some iterations, without a matrix instruction, connected to a store."""
    ends = {b for b in body if header in blocks[b].next}
    outside = frozenset(range(len(blocks))) - body
    optional = {
        b
        for b in body - {header}
        if not ends <= {b} and ends & _reached(blocks, {header}, outside | {b}) and not _has_matrix(code, blocks[b])
    }
    found: set[int] = set()
    while optional:
        component, todo = set(), {next(iter(optional))}
        while todo:
            block = todo.pop()
            component.add(block)
            near = {b for b in optional if b in blocks[block].next or block in blocks[b].next}
            todo |= near - component
        optional -= component
        if any(_stores(i) for b in component for i in code[blocks[b].start : blocks[b].stop]):
            found |= component
    return found


def _stores(instruction: Instruction) -> bool:
    access = access_bytes(instruction)
    return (access is not None and access[0] == "store") or instruction.name.startswith("UTMASTG")


def _has_matrix(code: list[Instruction], block: _Block) -> bool:
    return any(matrix_kind(instruction.name) for instruction in code[block.start : block.stop])


def count(code: list[Instruction]) -> Count:
    """Count the instructions of a kernel (``parse_sass`` or ``parse_amdgcn``).

    Raises:
        ValueError: the list is empty.
    """
    if not code:
        raise ValueError("no instructions: the listing has another form than expected")
    blocks = _blocks(code)
    reached = _reached(blocks, {0})
    loops = _loops(blocks)
    working = {h: body for h, body in loops.items() if any(_has_matrix(code, blocks[b]) for b in body)}
    candidates = working or loops
    innermost = {
        h: body for h, body in candidates.items() if not any(o != h and other < body for o, other in candidates.items())
    }
    if not working and innermost:
        longest = max(innermost, key=lambda h: sum(blocks[b].stop - blocks[b].start for b in innermost[h]))
        innermost = {longest: innermost[longest]}
    bodies = [(header, innermost[header]) for header in sorted(innermost)]
    ends = [_optional_stores(code, blocks, header, body) for header, body in bodies]
    inside = set().union(*ends)
    in_loops = set().union(*(body for _, body in bodies))
    after = _reached(blocks, in_loops) - in_loops

    def part(chosen: set[int]) -> Part:
        return _part([i for b in sorted(chosen) for i in code[blocks[b].start : blocks[b].stop]])

    kept = [i for b in sorted(reached) for i in code[blocks[b].start : blocks[b].stop]]
    accesses = [found for found in map(access_bytes, kept) if found]
    return Count(
        whole=part(reached),
        setup=part(reached - in_loops - after),
        loops=tuple(part(body - end) for (_, body), end in zip(bodies, ends, strict=True)),
        epilogue=part(inside or after),
        matrix=dict(Counter(kind for kind in (matrix_kind(i.name) for i in kept) if kind)),
        asynchronous=dict(Counter(kind for kind in map(copy_kind, kept) if kind)),
        loads=dict(Counter(width for kind, width in accesses if kind == "load")),
        stores=dict(Counter(width for kind, width in accesses if kind == "store")),
    )
