"""The command line as a person uses it: what it prints, what it writes, what it says when something is wrong."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import narrows as nr
from narrows import cli


def call(*words: object) -> int:
    """Runs the command line in this process and gives its exit code."""
    before, sys.argv = sys.argv, ["narrows", *map(str, words)]
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    finally:
        sys.argv = before
    return 0


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "a"
    assert call("fit", "digits", "--latent", 3, "--epochs", 2, "--seed", 1, "--folder", folder) == 0
    return folder


def test_fit_prints_what_was_chosen_and_ends_with_what_to_do_next(tmp_path, capsys):
    assert call("fit", "digits", "--epochs", 1, "--folder", tmp_path / "a") == 0
    told = capsys.readouterr()
    assert "integers 0..16 scaled to 0..1 (17 levels)" in told.out
    assert "DiscretisedLogistic" in told.out
    assert "at most 12 steps of 128 rows, about" in told.out
    assert "step 12, epoch 1: train" in told.err
    last = told.out.splitlines()
    assert last[-5].startswith(f"Report: {tmp_path / 'a' / 'report.html'}")
    assert [line.split()[1] for line in last[-3:]] == ["sample", "reconstruct", "project"]
    assert nr.load(tmp_path / "a").model.latent == 21  # 90 % of the variance


def test_report_says_everything_in_order_and_needs_no_network(run):
    page = (run / "report.html").read_text()
    order = [
        "On test rows", "The data", "Beside the cheap alternatives", "Training", "Reconstructions of test rows",
        "worst", "Samples", "What each unit of the code is used for", "The code", "Traversal", "Again",
    ]  # fmt: skip
    places = [page.index(heading) for heading in order]
    assert places == sorted(places)
    assert "http" not in page.replace("http-equiv", "")
    assert "narrows fit digits --recipe vae --latent 3 --epochs 2 --seed 1</pre>" in page


def test_command_of_the_report_gives_the_same_weights(run, tmp_path, monkeypatch):
    from narrows.report import command

    words = command(nr.load(run)).split()[1:]
    assert call(*words, "--folder", tmp_path / "again", "--quiet") == 0
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()


def test_evaluate(run, capsys):
    assert call("evaluate", run, "--samples", 20) == 0
    told = capsys.readouterr().out
    for words in (
        "ELBO",
        "distortion (reconstruction)",
        "rate (KL)",
        "K = 20",
        "bits/dim",
        "active units",
        "On test rows",
    ):
        assert words in told


def test_evaluate_by_another_estimator_and_the_two_gaps(run, monkeypatch, capsys):
    few = nr.evaluate.annealed_importance_sampling
    monkeypatch.setattr(nr.evaluate, "annealed_importance_sampling", lambda *a: few(*a, steps=4, chains=2))
    words = ("--samples", 20, "--rows", 5)
    assert call("evaluate", run, *words, "--estimator", "annealed", "--gaps") == 0
    told = capsys.readouterr().out
    assert "On 5 test rows log p(x) >= " in told
    assert "annealed importance sampling, 4 steps, K = 2" in told
    assert "importance-weighted, K = 20" in told
    assert "approximation" in told
    assert (run / "gaps.png").stat().st_size > 3000
    nr.load(run)
    assert call("evaluate", run, *words, "--estimator", "quadrature") == 1
    assert "codes of one or two units; this one has 3" in capsys.readouterr().err
    assert call("evaluate", run, "--estimator", "exact") == 1
    assert "no estimator 'exact'; there is importance, annealed, quadrature" in capsys.readouterr().err


def test_sample_and_reconstruct_write_files_in_the_data_s_own_units(run, tmp_path, capsys):
    assert call("sample", run, "-n", 9, "--out", tmp_path / "s.png") == 0
    with Image.open(tmp_path / "s.png") as picture:
        assert picture.width > 200
    assert call("sample", run, "-n", 5, "--draw", "--out", tmp_path / "s.npy") == 0
    made = np.load(tmp_path / "s.npy")
    assert made.shape == (5, 1, 8, 8)
    assert made.dtype == np.uint8
    assert 8 < made.max() <= 16
    assert call("sample", run, "-n", 5, "--temperature", 0, "--out", tmp_path / "t.npy") == 0
    assert (np.load(tmp_path / "t.npy") == np.load(tmp_path / "t.npy")[:1]).all()
    assert call("reconstruct", run, tmp_path / "s.npy", "--out", tmp_path / "r.csv") == 0
    assert np.loadtxt(tmp_path / "r.csv", delimiter=",", skiprows=1).shape == (5, 64)
    assert call("sample", run) == 0
    assert (run / "samples.png").exists()
    nr.load(run)  # what was added does not break the seal


def test_walks_through_the_code(run, tmp_path, capsys):
    assert call("interpolate", run, "--between", 0, 5, "--steps", 4, "--out", tmp_path / "i.npy") == 0
    assert np.load(tmp_path / "i.npy").shape == (4, 1, 8, 8)
    assert call("traverse", run, "--unit", 2, "--unit", 0, "--steps", 5, "--out", tmp_path / "t.npy") == 0
    assert np.load(tmp_path / "t.npy").shape == (10, 1, 8, 8)
    assert call("interpolate", run) == call("traverse", run) == 0
    assert (run / "interpolation.png").exists()
    for path in ("spherical", "density"):
        assert call("interpolate", run, "--path", path, "--steps", 3, "--out", tmp_path / f"{path}.npy") == 0
        assert np.load(tmp_path / f"{path}.npy").shape == (3, 1, 8, 8)
    assert call("interpolate", run, "--between", 0, 9999) == 1
    assert "there are test rows 0 to 179; got 9999" in capsys.readouterr().err
    assert call("traverse", run, "--unit", 3) == 1
    assert "units 0 to 2; got 3" in capsys.readouterr().err


def test_codes_and_projections(run, tmp_path, capsys):
    assert call("encode", run, "digits", "--out", tmp_path / "z.parquet") == 0
    from pyarrow import parquet

    table = parquet.read_table(tmp_path / "z.parquet")
    assert (table.num_rows, table.column_names) == (1797, ["z0", "z1", "z2"])
    assert call("encode", run, "digits", "--out", tmp_path / "z.csv") == 0
    codes = np.loadtxt(tmp_path / "z.csv", delimiter=",", skiprows=1)
    assert np.allclose(codes[:, 1], table["z1"].to_numpy(), atol=1e-6)
    assert call("encode", run, "digits", "--spread", "--out", tmp_path / "s.csv") == 0
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == "z0,z1,z2,sigma0,sigma1,sigma2,entropy"
    wide = np.loadtxt(tmp_path / "s.csv", delimiter=",", skiprows=1)
    assert np.allclose(wide[:, :3], codes, atol=1e-6)
    assert np.allclose(wide[:, 6], np.log(wide[:, 3:6]).sum(1) + 1.5 * np.log(2 * np.pi * np.e), atol=1e-3)
    assert call("project", run) == 0
    assert (run / "projection.png").exists()
    assert np.loadtxt(run / "projection.csv", delimiter=",", skiprows=1).shape == (180, 2)
    assert call("project", run, "digits", "--method", "latent") == 1
    assert "shows a code of two units; this one has 3" in capsys.readouterr().err
    assert call("encode", run, "digits", "--out", tmp_path / "z.txt") == 1
    assert "--out ends in .csv, .npy or .parquet" in capsys.readouterr().err


def test_verify_measures_again_and_trains_again(run, tmp_path, capsys):
    import shutil

    from narrows import store

    assert call("verify", run, "--rerun") == 0
    told = capsys.readouterr().out.splitlines()
    assert len(told) == 4
    assert all(line.startswith("ok") for line in told)
    forged = tmp_path / "forged"
    shutil.copytree(run, forged)
    figures = json.loads((forged / "evaluation.json").read_text())
    figures["parts"]["test"]["elbo"][0] += 1.0
    store.write_json(forged / "evaluation.json", figures)
    assert call("verify", forged) == 1
    assert "evaluation.json has been changed" in capsys.readouterr().err
    store.seal(forged)
    assert call("verify", forged) == 1
    assert "DIFFERS  stored figures: parts.test.elbo[0] was" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["onnx", "pt2"])
@pytest.mark.filterwarnings("ignore")  # of the exporters about themselves
def test_exported_parts_are_the_model_at_any_batch_size(run, tmp_path, form):
    import torch

    assert call("export", run, "--format", form, "--out", tmp_path) == 0
    loaded = nr.load(run)
    rows = loaded.data.test
    x = loaded.data.x[torch.arange(7)].float()
    if form == "onnx":
        import onnxruntime

        parts = [onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("encoder", "decoder")]
        z = parts[0].run(None, {"x": x.numpy()})[0]
        back = parts[1].run(None, {"z": z})[0]
    else:
        parts = [torch.export.load(tmp_path / f"{name}.pt2").module() for name in ("encoder", "decoder")]
        z = parts[0](x).detach().numpy()
        back = parts[1](torch.from_numpy(z)).detach().numpy()
    scaled = loaded.data.scaling(x)
    assert np.allclose(z, nr.evaluate.codes(loaded.model, scaled).numpy(), atol=1e-5)
    assert np.allclose(back / 16, nr.evaluate.reconstruct(loaded.model, scaled).numpy(), atol=1e-5)
    assert len(rows) == 180


def test_check_says_what_fit_would_do_and_ends_with_the_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert call("check", "digits", "--recipe", "beta_vae") == 0
    told = capsys.readouterr().out
    assert "10 classes" in told
    assert "about" in told
    assert told.splitlines()[-1] == "narrows fit digits --recipe beta_vae"
    assert not any(tmp_path.iterdir())


def test_cite_names_the_parts_that_are_used(run, capsys):
    assert call("cite", "vae") == 0
    assert "pixelcnn" not in capsys.readouterr().out
    assert call("cite", run) == 0
    told = capsys.readouterr().out
    assert told.count("@") == 3
    assert "salimans2017pixelcnn" in told
    assert call("cite", "vea") == 1


def test_recipes_and_data_are_listed(capsys):
    assert call("recipes") == call("data") == 0
    told = capsys.readouterr().out
    for name in ("autoencoder", "beta_vae", "iwae", "vae", "digits", "mnist", "fashion-mnist"):
        assert name in told


def test_resume_extends_a_finished_run(run, tmp_path):
    import shutil

    folder = tmp_path / "copy"
    shutil.copytree(run, folder)
    assert call("fit", "--resume", "--folder", folder, "--epochs", 3, "--quiet") == 0
    assert call("fit", "digits", "--latent", 3, "--epochs", 3, "--seed", 1, "--folder", tmp_path / "b", "--quiet") == 0
    assert (folder / "weights.safetensors").read_bytes() == (tmp_path / "b" / "weights.safetensors").read_bytes()


def test_configuration_file_and_set(tmp_path):
    (tmp_path / "c.yaml").write_text(
        "data: digits\nrecipe: beta_vae\nlatent: 2\nepochs: 1\nbeta: {WarmUp: {steps: 20}}\n"
    )
    words = [
        "--set",
        'network={"Mlp": {"hidden": [9]}}',
        "--set",
        "free_bits=0.2",
        "--folder",
        tmp_path / "a",
        "--quiet",
    ]
    assert call("fit", "--config", tmp_path / "c.yaml", *words) == 0
    loaded = nr.load(tmp_path / "a")
    assert loaded.objective.beta == nr.schedules.WarmUp(20)
    assert loaded.objective.free_bits == 0.2
    assert loaded.model.encoder.layers[0].out_features == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit"], "fit needs DATA"),
        (["fit", "digit"], "did you mean"),
        (["fit", "digits", "--recipe", "vea"], "there is no recipe 'vea'; did you mean 'vae'"),
        (["fit", "digits", "--set", "epoch=3"], "there is no setting 'epoch'; did you mean 'epochs'"),
        (["fit", "digits", "--set", "epochs"], "--set takes name=value"),
        (["fit", "digits", "--latent", "0"], "at least one unit; got latent=0"),
        (["fit", "digits", "--latent", "many"], "whole number or auto; got 'many'"),
        (["fit", "digits", "--beta", "-1"], "beta is a weight and cannot be negative; got -1"),
        (["fit", "digits", "--epochs", "-2"], "epochs is passes over the training rows at most.*got -2"),
        (["fit", "digits", "--config", "nothing.yaml"], "there is no configuration nothing.yaml"),
        (["fit", "--resume"], "say which by --folder"),
        (["fit", "--resume", "--folder", "nowhere"], "holds no run to resume"),
        (["fit", "digits", "--set", "likelihood=Gausian"], "there is no likelihood 'Gausian'; did you mean 'Gaussian'"),
        (["evaluate", "nowhere"], "there is no run folder nowhere"),
        (["reconstruct", "nowhere", "digits"], "there is no run folder nowhere"),
    ],
)  # fmt: skip
def test_bad_input_is_one_sentence_and_exit_one(words, message, capsys, monkeypatch, tmp_path):
    import re

    monkeypatch.chdir(tmp_path)
    assert call(*words, *(["--quiet"] if words[0] == "fit" else [])) == 1
    told = capsys.readouterr().err
    assert re.search(message, told)
    assert "Traceback" not in told
    assert len(told.strip().splitlines()) == 1
    assert not any(tmp_path.iterdir())  # nothing half made is left


def test_finished_folder_is_never_overwritten(run, capsys):
    before = (run / "weights.safetensors").read_bytes()
    assert call("fit", "digits", "--epochs", 1, "--folder", run, "--quiet") == 1
    assert "never overwritten" in capsys.readouterr().err
    assert (run / "weights.safetensors").read_bytes() == before


def test_unknown_option_names_the_nearest(capsys):
    assert call("fit", "digits", "--epoch", 3) == 2
    assert "--epochs" in capsys.readouterr().err


def test_ctrl_c_leaves_a_folder_that_resumes_and_exit_code_130(tmp_path):
    folder = tmp_path / "a"
    words = [
        sys.executable,
        "-m",
        "narrows",
        "fit",
        "digits",
        "--latent",
        "2",
        "--folder",
        str(folder),
        "--epochs",
        "900",
    ]
    child = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    told = child.communicate()[1]
    assert child.returncode == 130, told
    assert f"narrows fit --resume --folder {folder}" in told
    assert "Traceback" not in told
    step = int(json.loads((folder / "checkpoint" / "latest.json").read_text())["file"][5:14])
    epochs = step // 12 + 2
    assert call("fit", "--resume", "--folder", folder, "--epochs", epochs, "--quiet") == 0
    assert nr.load(folder).config["steps"] == 12 * epochs


def test_help_is_quick_because_nothing_heavy_is_imported():
    script = "import sys; sys.argv = ['narrows', '--help']\nfrom narrows.cli import main\n" + (
        "try:\n main()\nexcept SystemExit:\n pass\n"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'pydantic', 'rich'}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert Path(cli.__file__).exists()
