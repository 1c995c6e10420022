"""Parsed PTX -> C++ against ../emulator/kernel_abi.h. One function per entry, one line per instruction.

Registers are plain arrays of unsigned integers, one per PTX register family, whatever PTX calls
their type; semantics.h reinterprets them. Each memory access and warp operation carries its site, the
instruction's number, by which the emulator names it in reports and counters.
"""

from __future__ import annotations

import re

from .instructions import OPCODES, Memory, Value
from .parse import Entry, Instruction, Label, Module, PtxError

_STORAGE = {"pred": "bool", "b16": "uint16_t", "b32": "uint32_t", "f32": "uint32_t", "b64": "uint64_t"}
_INTEGER = {"b": "uint8_t", "h": "uint16_t", "w": "uint32_t", "d": "uint64_t"}
_WIDTH = {"pred": "p", "b16": "h", "b32": "w", "f32": "w", "b64": "d"}
_SPECIAL_REGISTERS = {
    "%tid.x": "emu::thread_index()",
    "%ctaid.x": "emu::block_index().x",
    "%ctaid.y": "emu::block_index().y",
}


def translate(module: Module, *, source: str) -> str:
    """C++ text for every entry of `module`, registered under its PTX name.

    Raises:
        PtxError: an opcode, operand or register outside the tables.
    """
    functions = [_Function(entry).text() for entry in module.entries]
    table = "\n".join(
        f'    {{"{e.name}", {_cpp_name(e.name)}, {e.param_bytes}, {e.static_shared_bytes}, '
        f"{_cpp_name(e.name)}_sites, {len(e.body)}}},"
        for e in module.entries
    )
    return (
        f"// Generated from {source} by kernels/testing/ptx; do not edit.\n"
        '#include "emulator/kernel_abi.h"\n#include "emulator/semantics.h"\n\n'
        "namespace {\n\n" + "\n".join(functions) + "\n}  // namespace\n\n"
        'extern "C" const emu::Kernel emu_kernels[] = {\n' + table + "\n    {},\n};\n"
    )


def _cpp_name(name: str) -> str:
    return "ptx_" + name.replace("$", "_")


class _Function:
    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        self.site = 0

    def text(self) -> str:
        entry = self.entry
        name = _cpp_name(entry.name)
        arrays = [f"  {_STORAGE[kind]} {prefix[1:]}[{count}];" for prefix, (kind, count) in entry.registers.items()]
        lines, sites = [], []
        for self.site, item in enumerate(entry.body):
            sites.append("nullptr" if isinstance(item, Label) else f'"{item.opcode}"')
            lines.append(self._label(item) if isinstance(item, Label) else "  " + self._guarded(item))
        return (
            f"const char* const {name}_sites[] = {{{', '.join(sites)}}};\n"
            f"void {name}(const unsigned char* param) {{\n" + "\n".join(arrays + lines) + "\n}\n"
        )

    def _label(self, label: Label) -> str:
        return f"{label.name.replace('$', '')}:;"

    def _guarded(self, instruction: Instruction) -> str:
        try:
            code = self._instruction(instruction)
        except PtxError as error:
            raise PtxError(f"{self.entry.name}, instruction {self.site}, '{instruction}': {error}") from None
        if instruction.predicate is None:
            return code
        sign = "!" if instruction.predicate.startswith("!") else ""
        return f"if ({sign}{self._register(instruction.predicate.lstrip('!'), 'p')}) {{ {code} }}"

    def _instruction(self, instruction: Instruction) -> str:
        semantics = OPCODES.get(instruction.opcode)
        if semantics is None:
            raise PtxError(f"unknown opcode {instruction.opcode!r}: give it semantics and a unit test")
        if isinstance(semantics, Value):
            return self._value(instruction, semantics)
        if isinstance(semantics, Memory):
            return self._memory(instruction, semantics)
        return getattr(self, "_" + semantics.name)(instruction.operands)

    # Operands

    def _register(self, name: str, kind: str) -> str:
        match = re.match(r"(%[a-z]+)(\d+)$", name)
        if match is None or match.group(1) not in self.entry.registers:
            raise PtxError(f"register {name!r}")
        declared, count = self.entry.registers[match.group(1)]
        if _WIDTH[declared] != kind:
            raise PtxError(f"{name} is {declared} where {kind!r} is expected")
        if int(match.group(2)) >= count:
            raise PtxError(f"{name} is beyond its declaration")
        return f"{match.group(1)[1:]}[{match.group(2)}]"

    def _operand(self, text: str, kind: str) -> str:
        if text in _SPECIAL_REGISTERS and kind == "w":
            return _SPECIAL_REGISTERS[text]
        if text.startswith("%"):
            return self._register(text, kind)
        if kind == "i":
            return str(int(text, 0))
        if (match := re.match(r"0f([0-9a-fA-F]{8})$", text)) and kind == "w":
            return f"0x{match.group(1)}u"
        if re.match(r"-?\d+$", text) and kind in _INTEGER:
            return f"static_cast<{_INTEGER[kind]}>({text}ll)"
        if text in self.entry.shared and kind in "wd":
            return f"{self.entry.shared[text]}u"
        if text == self.entry.dynamic_shared and kind in "wd":
            return f"{self._dynamic_offset()}u"
        if text == self.entry.param and kind == "d":
            return "0ull"
        raise PtxError(f"operand {text!r} where {kind!r} is expected")

    def _dynamic_offset(self) -> int:
        return -(-self.entry.static_shared_bytes // 128) * 128

    def _address(self, text: str, kind: str) -> str:
        match = re.match(r"\[([%$\w]+)(?:\+(-?\d+))?\]$", text)
        if match is None:
            raise PtxError(f"address {text!r}")
        base, offset = match.group(1), int(match.group(2) or 0)
        wide = self._is_wide(base)
        value = self._operand(base, "d" if wide else "w")
        if wide or kind == "w":
            return f"{value} + ({offset})"
        raise PtxError(f"address {text!r} is not 64 bits wide")

    def _is_wide(self, base: str) -> bool:
        if not base.startswith("%"):
            return True
        family = self.entry.registers.get(re.sub(r"\d+$", "", base))
        return family is not None and family[0] == "b64"

    def _vector(self, text: str) -> list[str]:
        if not (text.startswith("{") and text.endswith("}")):
            raise PtxError(f"vector operand expected, got {text!r}")
        return [part.strip() for part in text[1:-1].split(",")]

    # Instruction families

    def _value(self, instruction: Instruction, semantics: Value) -> str:
        operands = instruction.operands
        if len(operands) != 1 + len(semantics.operands):
            raise PtxError(f"{len(semantics.operands)} source operands expected, got {len(operands) - 1}")
        sources = [self._operand(o, k) for o, k in zip(operands[1:], semantics.operands, strict=True)]
        return f"{self._register(operands[0], semantics.result)} = emu::{semantics.function}({', '.join(sources)});"

    def _memory(self, instruction: Instruction, semantics: Memory) -> str:
        target, address = instruction.operands
        if semantics.store:
            target, address = address, target
        names = self._vector(target) if semantics.count > 1 else [target]
        if len(names) != semantics.count:
            raise PtxError(f"{semantics.count} registers expected, got {len(names)}")
        kind = {1: "b", 2: "h", 4: "w", 8: "d"}[semantics.size]
        bytes_ = semantics.size * semantics.count
        where = self._address(address, "w" if semantics.space == "shared" else "d")
        buffer = f"{_INTEGER[kind]} v[{semantics.count}]"
        if semantics.store:
            values = ", ".join(self._operand(n, kind) for n in names)
            return f"{{ {buffer} = {{{values}}}; emu::{semantics.space}_write({where}, v, {bytes_}, {self.site}); }}"
        call = (
            f"emu::param_read(param, {self.entry.param_bytes}, {where}, v, {bytes_});"
            if semantics.space == "param"
            else f"emu::{semantics.space}_read({where}, v, {bytes_}, {self.site});"
        )
        signed = instruction.opcode.endswith(".s32")
        results = " ".join(self._widening(n, f"v[{i}]", signed) for i, n in enumerate(names))
        return f"{{ {buffer}; {call} {results} }}"

    def _widening(self, name: str, value: str, signed: bool) -> str:
        """A load may fill a wider register: PTX extends by zeros, or by the sign for .s types."""
        family = self.entry.registers.get(re.sub(r"\d+$", "", name), ("?", 0))[0]
        extended = f"emu::sign_extend({value})" if signed and family == "b64" else value
        return f"{self._register(name, _WIDTH.get(family, '?'))} = {extended};"

    def _mov(self, operands: tuple[str, ...]) -> str:
        target, source = operands
        if target.startswith("{"):
            low, high = (self._register(n, "h") for n in self._vector(target))
            return f"{{ const uint32_t v = {self._operand(source, 'w')}; {low} = v & 0xffff; {high} = v >> 16; }}"
        if source.startswith("{"):
            low, high = (self._operand(n, "h") for n in self._vector(source))
            return f"{self._register(target, 'w')} = {low} | static_cast<uint32_t>({high}) << 16;"
        family = self.entry.registers.get(re.sub(r"\d+$", "", target), ("?", 0))[0]
        kind = _WIDTH.get(family, "?")
        return f"{self._register(target, kind)} = {self._operand(source, kind)};"

    def _branch(self, operands: tuple[str, ...]) -> str:
        return f"emu::tick(); goto {operands[0].replace('$', '')};"

    def _ret(self, _: tuple[str, ...]) -> str:
        return "return;"

    def _barrier(self, operands: tuple[str, ...]) -> str:
        if operands != ("0",):
            raise PtxError("only barrier 0 of the whole CTA is emulated")
        return f"emu::barrier({self.site});"

    def _copy_async(self, operands: tuple[str, ...]) -> str:
        target, source, size, present = operands
        if size != "16":
            raise PtxError("only 16-byte copies are emulated")
        to, from_ = self._address(target, "w"), self._address(source, "d")
        return f"emu::copy_async({to}, {from_}, {self._operand(present, 'w')}, {self.site});"

    def _copy_async_commit(self, _: tuple[str, ...]) -> str:
        return "emu::copy_async_commit();"

    def _copy_async_wait(self, operands: tuple[str, ...]) -> str:
        return f"emu::copy_async_wait({int(operands[0])});"

    def _mma(self, operands: tuple[str, ...], function: str) -> str:
        d, a, b, c = (self._vector(o) for o in operands)
        sources = [f"{{{', '.join(self._operand(n, 'w') for n in v)}}}" for v in (a, b, c)]
        results = " ".join(f"{self._register(n, 'w')} = m.d[{i}];" for i, n in enumerate(d))
        return f"{{ emu::Mma m{{{', '.join(sources)}, {{}}}}; emu::{function}(m, {self.site}); {results} }}"

    def _mma_half(self, operands: tuple[str, ...]) -> str:
        return self._mma(operands, "mma_half")

    def _mma_bfloat(self, operands: tuple[str, ...]) -> str:
        return self._mma(operands, "mma_bfloat")
