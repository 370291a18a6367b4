"""What is installed is what is needed: a wheel in an empty environment fits a table there."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def run(*words: object, **environment: str) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, env=os.environ | environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_fits_a_table_where_nothing_else_is_installed(tmp_path):
    installer = Path(sys.executable).parent / "uv"
    if not installer.exists():
        pytest.skip("the environment was not made by make, which brings uv")
    run(installer, "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT)
    wheel = next(tmp_path.glob("narrows-*.whl"))
    python = tmp_path / "empty" / "bin" / "python"
    run(installer, "venv", "--quiet", "--python", sys.executable, tmp_path / "empty")
    pins = ROOT / "constraints.txt"
    run(installer, "pip", "install", "--quiet", "--python", python, "-c", pins, "torch")
    run(installer, "pip", "install", "--quiet", "--python", python, "-c", pins, wheel)
    table = np.random.default_rng(0).normal(size=(200, 3))
    np.savetxt(tmp_path / "table.csv", table, delimiter=",", header="a,b,c", comments="")
    narrows = tmp_path / "empty" / "bin" / "narrows"
    told = run(narrows, "fit", tmp_path / "table.csv", "--epochs", 2, "--folder", tmp_path / "run")
    assert "each of 3 columns scaled" in told
    assert (tmp_path / "run" / "report.html").exists()
