"""Translate the PTX of our kernels to C++ that runs on the emulator (see ../README.md)."""

from .emit import translate
from .instructions import OPCODES
from .parse import Entry, Instruction, Label, Module, PtxError, parse_module

__all__ = ["OPCODES", "Entry", "Instruction", "Label", "Module", "PtxError", "parse_module", "translate"]
