"""A runtime that segfaults: Python runs this file at its start if this folder is on PYTHONPATH.

The process then reads address 0 when a model whose description is "segfault on white" is asked about
a white picture. The SIGSEGV is real, in the process and at the place where the model runs. No graph
was found that makes the installed version of ONNX Runtime do so by itself.
"""

import ctypes
import importlib.abc
import importlib.machinery
import math
import sys

MARK = "segfault on white"
WHITE = 254.0


class _Finder(importlib.abc.MetaPathFinder):
    """Changes the module ``onnxruntime`` once it is loaded."""

    def find_spec(self, name, path=None, target=None):
        if name != "onnxruntime":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        load = spec.loader.exec_module

        def exec_module(module):
            load(module)
            _change(module)

        spec.loader.exec_module = exec_module
        return spec


def _change(runtime):
    class Session(runtime.InferenceSession):
        def run(self, names, inputs, *more):
            self.crash_on_white(tensor.min() for tensor in inputs.values())
            return super().run(names, inputs, *more)

        def io_binding(self):
            binding = super().io_binding()
            bind, binding.bound = binding.bind_input, []

            def bind_input(name, device, number, kind, shape, pointer):
                size = math.prod(shape)
                binding.bound.append((ctypes.c_float * size).from_address(pointer))
                bind(name, device, number, kind, shape, pointer)

            binding.bind_input = bind_input
            return binding

        def run_with_iobinding(self, binding, *more):
            self.crash_on_white(map(min, binding.bound))
            return super().run_with_iobinding(binding, *more)

        def crash_on_white(self, darkest):
            if self.get_modelmeta().description == MARK and any(one > WHITE for one in darkest):
                ctypes.string_at(0)

    runtime.InferenceSession = Session


sys.meta_path.insert(0, _Finder())
