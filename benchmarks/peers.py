"""Pythae 0.1.2 in an environment of its own, so that both libraries are measured in one run on one machine."""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def python() -> str:
    """The interpreter of the peer's environment, made on the first call (torch as pinned here, then Pythae)."""
    place = HERE.parent / ".venv-pythae"
    binary = place / "bin" / "python"
    if not (place / ".installed").exists():
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pin = next(
            line for line in (HERE.parent / "constraints.txt").read_text().splitlines() if line.startswith("torch=")
        )
        for wanted in ([pin], [pin, "numpy<3", "pythae==0.1.2"]):
            subprocess.run([str(binary), "-m", "pip", "install", "--quiet", *wanted], check=True)
        (place / ".installed").touch()
    return str(binary)


MODEL = """
import numpy as np, torch
from pythae.models import VAE, VAEConfig
from pythae.models.base.base_utils import ModelOutput

def vae(latent=16):
    torch.manual_seed(0)
    return VAE(VAEConfig(input_dim=(1, 28, 28), latent_dim=latent, reconstruction_loss="bce"))  # 784-512-(2x16)-512-784
"""
