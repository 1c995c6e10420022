"""PTX text -> plain values. Knows the grammar that nvcc writes for our kernels and nothing else.

A module is a list of entries; an entry has one `.param` block, register and shared-memory
declarations, and a body of labels and instructions. Whatever does not fit is a PtxError: the
translator must never guess.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


class PtxError(Exception):
    """The PTX holds something that the translator does not know. Usual cause: a kernel began to use
    an instruction that has no semantics (and no unit test) here yet."""


@dataclass(frozen=True, slots=True)
class Label:
    name: str


@dataclass(frozen=True, slots=True)
class Instruction:
    opcode: str
    operands: tuple[str, ...]
    predicate: str | None = None  # "%p3", or "!%p3"

    def __str__(self) -> str:
        guard = f"@{self.predicate} " if self.predicate else ""
        return f"{guard}{self.opcode} {', '.join(self.operands)}"


@dataclass(slots=True)
class Entry:
    name: str
    param: str  # the one parameter, a struct
    param_bytes: int
    registers: dict[str, tuple[str, int]] = field(default_factory=dict)  # "%r" -> ("b32", count)
    shared: dict[str, int] = field(default_factory=dict)  # symbol -> offset
    static_shared_bytes: int = 0
    dynamic_shared: str | None = None  # symbol of the extern array
    body: list[Label | Instruction] = field(default_factory=list)


@dataclass(slots=True)
class Module:
    target: str
    entries: list[Entry] = field(default_factory=list)


_ENTRY = re.compile(r"\.entry\s+(?P<name>[\w$]+)\s*\((?P<params>[^)]*)\)(?P<directives>[^{]*)\{")
_PARAM = re.compile(r"\.param\s+\.align\s+\d+\s+\.b8\s+(?P<name>[\w$]+)\[(?P<bytes>\d+)\]\s*$")
_REGISTER = re.compile(r"\.reg\s+\.(?P<type>\w+)\s+(?P<prefix>%[a-z]+)<(?P<count>\d+)>$")
_SHARED = re.compile(r"\.shared\s+\.align\s+(?P<align>\d+)\s+\.b8\s+(?P<name>[\w$]+)\[(?P<bytes>\d*)\]$")
_EXTERN = re.compile(r"\.extern\s+\.shared\s+\.align\s+\d+\s+\.b8\s+(?P<name>[\w$]+)\[\]\s*;")
_GUARD = re.compile(r"@(?P<predicate>!?%p\d+)\s+(?P<rest>.*)$", re.S)


def parse_module(text: str) -> Module:
    """Parse the text of one .ptx file.

    Raises:
        PtxError: anything outside the grammar above.
    """
    text = re.sub(r"//[^\n]*", "", text)
    target = re.search(r"\.target\s+(\w+)", text)
    if target is None:
        raise PtxError("no .target line: not a PTX module")
    module = Module(target.group(1))
    dynamic = [m.group("name") for m in _EXTERN.finditer(text)]
    if len(dynamic) > 1:
        raise PtxError(f"one dynamic shared array expected, found {dynamic}")
    bodies = [(match, _body_of(text, match.end())) for match in _ENTRY.finditer(text)]
    shared = _declared_outside(text, [body for _, body in bodies])
    for match, body in bodies:
        module.entries.append(_parse_entry(match, body, dynamic, shared))
    if re.search(r"\.func\b", text):
        raise PtxError("device functions that are not inlined are not supported")
    return module


def _declared_outside(text: str, bodies: list[str]) -> dict[str, str]:
    """Declarations of shared arrays that stand before the entries, by symbol.

    nvcc puts an array there when two entries have the function inlined that owns it; each entry has its own array.
    """
    for body in bodies:
        text = text.replace(body, "")
    statements = (re.sub(r"\s+", " ", item).strip() for item in re.split(r"[;{}]", text))
    found = (match for item in statements if (match := _SHARED.search(item)))
    return {match.group("name"): match.group(0) for match in found if match.group("bytes")}


def _body_of(text: str, start: int) -> str:
    depth, end = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        end += 1
    return text[start : end - 1]


def _parse_entry(match: re.Match[str], body: str, dynamic: list[str], shared: dict[str, str]) -> Entry:
    param = _PARAM.match(match.group("params").strip())
    if param is None:
        raise PtxError(f"{match.group('name')}: one struct parameter expected, got {match.group('params')!r}")
    entry = Entry(match.group("name"), param.group("name"), int(param.group("bytes")))
    for symbol, declaration in shared.items():
        if re.search(rf"{re.escape(symbol)}(?![\w$])", body):
            _declare_shared(entry, declaration)
    for statement in _statements(body):
        if isinstance(statement, Label):
            entry.body.append(statement)
        elif statement.startswith(".reg"):
            _declare_registers(entry, statement)
        elif statement.startswith(".shared"):
            _declare_shared(entry, statement)
        elif statement.startswith("."):
            if not statement.startswith(".pragma"):
                raise PtxError(f"{entry.name}: directive {statement!r}")
        else:
            entry.body.append(parse_instruction(statement))
    if dynamic and dynamic[0] in body:
        entry.dynamic_shared = dynamic[0]
    return entry


def _statements(body: str) -> list[Label | str]:
    """Labels and statement texts; operand braces stay inside their statement."""
    found: list[Label | str] = []
    position = 0
    while position < len(body):
        rest = body[position:]
        if rest[0].isspace():
            position += 1
        elif label := re.match(r"(\$[\w$]+):", rest):
            found.append(Label(label.group(1)))
            position += label.end()
        elif rest[0] in "{}":  # a scope of its own around inline assembly declares nothing here
            position += 1
        else:
            end = rest.index(";")
            found.append(re.sub(r"\s+", " ", rest[:end]).strip())
            position += end + 1
    return found


def _declare_registers(entry: Entry, statement: str) -> None:
    match = _REGISTER.match(statement)
    if match is None:
        raise PtxError(f"{entry.name}: register declaration {statement!r}")
    entry.registers[match.group("prefix")] = (match.group("type"), int(match.group("count")))


def _declare_shared(entry: Entry, statement: str) -> None:
    match = _SHARED.match(statement)
    if match is None or not match.group("bytes"):
        raise PtxError(f"{entry.name}: shared declaration {statement!r}")
    align = int(match.group("align"))
    offset = -(-entry.static_shared_bytes // align) * align
    entry.shared[match.group("name")] = offset
    entry.static_shared_bytes = offset + int(match.group("bytes"))


def parse_instruction(statement: str) -> Instruction:
    guard = _GUARD.match(statement)
    predicate = guard.group("predicate") if guard else None
    if guard:
        statement = guard.group("rest")
    opcode, _, rest = statement.partition(" ")
    return Instruction(opcode, tuple(_operands(rest)), predicate)


def _operands(text: str) -> list[str]:
    """Split at commas outside braces and brackets."""
    parts, depth, current = [], 0, ""
    for char in text:
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(char, 0)
        if char == "," and depth == 0:
            parts.append(current.strip())
            current = ""
        else:
            current += char
    if current.strip():
        parts.append(current.strip())
    return parts
