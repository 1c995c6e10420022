"""Translate the PTX of our kernels to C++ that runs on the emulator (see ../README.md)."""

from .parse import Entry, Instruction, Label, Module, PtxError, parse_module
from .emit import translate
from .instructions import OPCODES

__all__ = ["OPCODES", "Entry", "Instruction", "Label", "Module", "PtxError", "parse_module", "translate"]
