"""Pictures exist, show what they say, and a run shows itself in a notebook."""

import numpy as np
import pytest
import torch

import narrows as nr
from narrows import pictures
from narrows.plots import reconstructions, samples

SHORT = nr.Training(epochs=2)


def trained(kind: str) -> nr.Run:
    generator = np.random.default_rng(0)
    x = nr.data.load("digits") if kind == "images" else nr.data.load(generator.normal(size=(300, 6)))
    model, objective = nr.recipes.vae(x.shape, latent=3, likelihood=x.likelihood)
    return nr.fit(model, objective, x, training=SHORT, quiet=True)


@pytest.fixture(scope="module", params=["images", "table"])
def run(request):
    return trained(request.param)


@pytest.mark.parametrize("name", ["curves", "latent", "rates", "reconstructions", "samples"])
def test_every_plot_is_a_figure_with_something_in_it(run, name):
    figure = getattr(run.plot, name)()
    picture = pictures.png(figure)
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 3000


def test_worst_reconstructions_are_the_worst(run):
    pairs = reconstructions(run, worst=True)
    errors = (pairs.first - pairs.second).square().flatten(1).sum(1)
    test = run.data.test.x
    every = (nr.evaluate.reconstruct(run.model, test) - test).square().flatten(1).sum(1)
    assert torch.allclose(errors, every.topk(12).values)


def test_samples_stand_beside_their_nearest_training_row(run):
    pairs = samples(run, 5)
    rows = run.data.train.x.flatten(1)
    nearest = (pairs.first.flatten(1)[:, None] - rows).square().sum(-1).min(1).values
    assert torch.allclose((pairs.first - pairs.second).square().flatten(1).sum(1), nearest, rtol=1e-4)


def test_grid_puts_each_image_in_its_place():
    x = torch.stack([torch.full((1, 2, 3), k / 4) for k in range(5)])
    grid = pictures.grid(x, across=2, gap=1)
    assert grid.shape == (3 * 3 + 1, 2 * 4 + 1, 1)
    for k in range(5):
        top, left = 1 + k // 2 * 3, 1 + k % 2 * 4
        assert (grid[top : top + 2, left : left + 3] == round(k / 4 * 255)).all()
    assert (grid[0] == 255).all()


def test_notebook_shows_verdict_and_curves(run):
    assert "not measured yet" in run._repr_html_()
    run.evaluate(samples=10)
    page = run._repr_html_()
    assert "On test rows" in page
    assert "data:image/png;base64," in page


def test_report_needs_a_place(run, tmp_path):
    run.evaluation = run.evaluation or run.evaluate(samples=10)
    with pytest.raises(ValueError, match="has no folder: say where"):
        run.report()
    page = run.report(tmp_path / "r.html").read_text()
    assert "repeat the call of fit" in page or "narrows fit digits" in page
