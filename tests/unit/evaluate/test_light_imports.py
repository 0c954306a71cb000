"""The modules of the evaluation stay light, except the one that starts engines."""

import pkgutil
import subprocess
import sys

import orchestration.evaluate

MODULES = [name for _, name, _ in pkgutil.walk_packages(orchestration.evaluate.__path__, "orchestration.evaluate.")]

HEAVY = {"orchestration.evaluate.command"}
"""Starts engines."""


def test_nothing_heavy_is_loaded() -> None:
    light = [name for name in MODULES if name not in HEAVY]
    code = f"""
import importlib, sys
for name in {light!r}:
    importlib.import_module(name)
sys.exit(f"{{[name for name in ('torch', 'ray', 'vllm', 'transformers', 'hydra', 'PIL') if name in sys.modules]}}"
         if {{'torch', 'ray', 'vllm', 'transformers', 'hydra', 'PIL'}} & sys.modules.keys() else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
