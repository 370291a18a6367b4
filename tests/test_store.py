"""A run folder gives back what was trained, and nothing that was changed since."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

import narrows as nr
from narrows import store
from narrows.likelihoods import Bernoulli
from narrows.models import Autoencoder
from narrows.posteriors import Gaussian
from narrows.priors import StandardNormal

X = torch.rand(60, 6, generator=torch.Generator().manual_seed(0)).round()
FILES = ("config.json", "weights.safetensors", "metrics.jsonl", "checkpoint/latest.json", "SHA256SUMS")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "a"
    model, objective = nr.recipes.beta_vae((6,), latent=2, beta=nr.schedules.WarmUp(5, final=2.0), free_bits=0.1)
    nr.fit(model, objective, X[:50], X[50:], training=nr.Training(epochs=2), folder=folder, quiet=True)
    return folder


def copy(folder: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(folder, to / "copy"))


def test_load_gives_the_run_back(folder):
    run, again = nr.load(folder), nr.load(folder)
    assert torch.equal(nr.evaluate.reconstruct(run.model, X), nr.evaluate.reconstruct(again.model, X))
    assert run.objective.beta == nr.schedules.WarmUp(5, final=2.0)
    assert run.objective.free_bits == 0.1
    assert not run.model.training
    assert "beta_vae, 2 steps" in repr(run)
    assert next(run.model.parameters()).device.type == "cpu"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", [0, 0.37, 0.99])
def test_a_changed_byte_is_refused_and_the_file_named(folder, tmp_path, name, place):
    broken = copy(folder, tmp_path)
    content = bytearray((broken / name).read_bytes())
    content[int(place * len(content))] ^= 0x04
    (broken / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} has been changed"):
        nr.load(broken)


@pytest.mark.parametrize("name", FILES[:3])
def test_a_missing_file_is_named(folder, tmp_path, name):
    broken = copy(folder, tmp_path)
    (broken / name).unlink()
    with pytest.raises(ValueError, match=f"{name} is missing"):
        nr.load(broken)


def test_plain_refusals(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no run folder"):
        nr.load(tmp_path / "nothing")
    broken = copy(folder, tmp_path)
    (broken / "SHA256SUMS").unlink()
    with pytest.raises(ValueError, match="is no finished run .* --resume"):
        nr.load(broken)
    config = json.loads((broken / "config.json").read_text())
    store.write_json(broken / "config.json", config | {"format": 99})
    store.seal(broken)
    with pytest.raises(ValueError, match="has format 99.*upgrade narrows"):
        nr.load(broken)


def own(width: int = 5) -> Autoencoder:
    torch.manual_seed(0)
    q, p = Gaussian(StandardNormal(2)), Bernoulli((6,))
    return Autoencoder(
        nn.Sequential(nn.Linear(6, width), nn.Tanh(), nn.Linear(width, q.features)), q, nn.Linear(2, 6), p
    )


def test_own_networks_are_stored_and_checked(tmp_path):
    model = own()
    nr.fit(model, nr.Objective(beta=0.5), X, training=nr.Training(epochs=1), folder=tmp_path / "own", quiet=True)
    with pytest.raises(ValueError, match="networks of your own.*load\\(folder, model=model\\)"):
        nr.load(tmp_path / "own")
    run = nr.load(tmp_path / "own", model=own())
    assert torch.equal(nr.evaluate.reconstruct(run.model, X), nr.evaluate.reconstruct(model, X))
    assert run.objective.beta(None) == 0.5
    with pytest.raises(ValueError, match=r"'encoder.0.weight' has shape \(5, 6\) .* and \(7, 6\)"):
        nr.load(tmp_path / "own", model=own(7))
    with pytest.raises(ValueError, match="lacks|has no place for"):
        nr.load(tmp_path / "own", model=nr.recipes.vae((6,), latent=2)[0])


def test_own_schedule_is_never_guessed(tmp_path):
    class Mine:
        steps = 0

        def __call__(self, step: object) -> float:
            return 0.3

    model, objective = nr.recipes.vae((6,), latent=2, beta=Mine())
    nr.fit(model, objective, X, training=nr.Training(epochs=1), folder=tmp_path / "a", quiet=True)
    with pytest.raises(ValueError, match="of your own"):
        nr.load(tmp_path / "a")
    run = nr.load(tmp_path / "a", model=nr.recipes.vae((6,), latent=2)[0], objective=objective)
    assert run.objective is objective


def test_write_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    store.write(path, b"old")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store.os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk is full: \S+ was not written, and what stood there is untouched"):
        store.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
