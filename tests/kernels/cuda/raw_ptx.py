"""Launch hand-written PTX on the emulator: for tests of the translator and of the emulator themselves."""

from __future__ import annotations

import ctypes
import struct

import emulation
import numpy as np
from emulation import build

HEADER = ".version 9.0\n.target sm_80\n.address_size 64\n"
REGISTERS = "\t.reg .pred %p<16>;\n\t.reg .b16 %rs<16>;\n\t.reg .b32 %r<64>;\n\t.reg .b64 %rd<32>;\n"


def entry(name: str, body: str, *, module="raw_0", shared=0) -> str:
    """An entry with one 64-byte parameter `args`, registers of every kind and `shared` static bytes.

    The module's name has two parts, like "half_4": the emulated driver finds modules by them.
    """
    memory = f"\t.shared .align 16 .b8 room[{shared}];\n" if shared else ""
    return (
        f".visible .entry onnxq_{module}_{name}(\n\t.param .align 8 .b8 args[64]\n)\n"
        f"{{\n{REGISTERS}{memory}{body}\n}}\n"
    )


class RawModule:
    """Translated entries and the device buffers of their launches."""

    def __init__(self, *entries: str, module="raw_0") -> None:
        self.module = module
        self.folder = build.emulated_module(module, HEADER + "\n".join(entries)).parent
        self.driver = emulation._driver()
        self.driver.cuInit(0)

    def launch(self, name: str, buffers: list[np.ndarray], *, threads=32, grid=1, outputs=(), **options) -> str:
        """Runs one kernel with pointers to copies of `buffers` as its parameter.

        Args:
            outputs: indices of buffers that start uninitialised and are read back.
        Returns:
            The emulator's messages, "" for a clean run.
        """
        switches = (options.get("truncate_sums", False), options.get("count", False))
        configured = emulation._Options(options.get("seed", 0), options.get("coresident", 1), True, True, *switches)
        self.driver.emu_configure(str(self.folder).encode(), ctypes.byref(configured), 108)
        function = ctypes.c_void_p()
        image = ctypes.c_uint32(0xBA55ED50)
        module = ctypes.c_void_p()
        self.driver.cuModuleLoadData(ctypes.byref(module), ctypes.byref(image))
        found = self.driver.cuModuleGetFunction(ctypes.byref(function), module, f"onnxq_{self.module}_{name}".encode())
        assert found == 0, f"no kernel {name}"
        pointers = [self._upload(b, i not in outputs) for i, b in enumerate(buffers)]
        param = ctypes.create_string_buffer(struct.pack(f"<{len(pointers)}Q", *pointers).ljust(64, b"\0"))
        params = (ctypes.c_void_p * 1)(ctypes.addressof(param))
        result = self.driver.cuLaunchKernel(function, grid, 1, 1, threads, 1, 1, options.get("shared_bytes", 0), None,
                                            params, None)  # fmt: skip
        for i in outputs:
            ctypes.memmove(buffers[i].ctypes.data, pointers[i], buffers[i].nbytes)
        for pointer in pointers:
            self.driver.cuMemFree_v2(ctypes.c_uint64(pointer))
        return "" if result == 0 else self.driver.emu_messages().decode() or f"error {result}"

    def _upload(self, array: np.ndarray, initialise: bool) -> int:
        pointer = ctypes.c_uint64()
        self.driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(array.nbytes))
        if initialise:
            data = np.ascontiguousarray(array)
            self.driver.cuMemcpyHtoD_v2(pointer, data.ctypes.data_as(ctypes.c_void_p), ctypes.c_size_t(data.nbytes))
        return pointer.value
