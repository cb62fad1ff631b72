"""A runtime that leaks: Python runs this file at its start if this folder is on PYTHONPATH.

A model whose description is "leaks" then takes 1 MiB more each quarter of a second from its load on,
in the process and at the place where the model runs. It stands for a runtime or an operator that
keeps memory: 1 MiB a minute, sped up 240 times.
"""

import importlib.abc
import importlib.machinery
import sys
import threading
import time

MARK = "leaks"
PAUSE_S = 0.25
kept = []


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
        def __init__(self, *given, **named):
            super().__init__(*given, **named)
            if self.get_modelmeta().description == MARK:
                threading.Thread(target=_leak, daemon=True).start()

    runtime.InferenceSession = Session


def _leak():
    while True:
        kept.append(bytearray(b"x") * (1 << 20))
        time.sleep(PAUSE_S)


sys.meta_path.insert(0, _Finder())
