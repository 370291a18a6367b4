"""Codes in the plane, codes with axes that can be read, codes with a density that makes a model generative."""

import copy
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from narrows import draws
from narrows.baselines import fit_pca
from narrows.data import Rows
from narrows.data import rows as as_rows
from narrows.diffusion import Diffusion
from narrows.evaluate import active_units, codes
from narrows.evaluate.common import batches, device_of
from narrows.labels import labels_of
from narrows.models import Model
from narrows.networks import Conv, Mlp
from narrows.posteriors import Concrete, Deterministic, Gaussian
from narrows.priors import GaussianMixture, Hierarchy, MultivariateGaussian, StandardNormal
from narrows.priors.codewords import over
from narrows.spec import describe

__all__ = ["Projection", "canonical_latent", "fit_prior", "project"]


class Projection(NamedTuple):
    """Rows in the plane."""

    points: Tensor  # (n, 2)
    title: str


def project(z: Tensor, method: str = "auto", seed: int = 0) -> Projection:
    """Codes (n, D) to two dimensions (n, 2).

    "latent" takes a code of two units as it is, "pca" its two leading principal components, "umap" the neighbourhood
    map of McInnes et al. 2018 (arXiv:1802.03426; install narrows[umap]); "auto" is the first of these that applies.

    Raises: ValueError for another method or a code of another size; ImportError without umap.
    """
    if method not in ("auto", "latent", "pca", "umap"):
        raise ValueError(f"there is no method {method!r}; there is auto, latent, pca, umap")
    if method == "umap":
        try:
            import umap
        except ImportError:
            raise ImportError("method umap needs the package umap-learn: pip install 'narrows[umap]'") from None
        return Projection(torch.from_numpy(umap.UMAP(random_state=seed).fit_transform(z.numpy())), "UMAP of the code")
    if z.shape[1] == 1:
        return Projection(torch.cat([z, torch.zeros_like(z)], 1), "the code, one unit")
    if z.shape[1] == 2 and method != "pca":
        return Projection(z, "the code")
    if method == "latent":
        raise ValueError(f"method latent shows a code of two units; this one has {z.shape[1]}. Use pca or umap")
    centred = z.double() - z.double().mean(0)
    if z.shape[1] == 2:
        return Projection(
            (centred @ torch.linalg.svd(centred, full_matrices=False).Vh.T).float(), "principal components"
        )
    pca = fit_pca(z, 2)
    share = float(pca.variances.sum() / centred.square().mean(0).sum())
    title = f"two leading principal components of the code ({share:.0%} of its variance)"
    return Projection((centred @ pca.axes).float(), title)


@torch.no_grad()
def fit_prior(
    model: Model,
    data: Rows | Tensor,
    prior: nn.Module | Callable[..., nn.Module] | None = None,
    rows: int = 50_000,
    seed: int = 0,
) -> nn.Module:
    """Ex-post density estimation: fits p(z) to the codes of some rows, and gives it to the model as its prior.

    Any member of the family becomes generative: `model.sample(n)` then draws z from what the codes are really like. A
    Gaussian encoder's codes are draws from q(z|x), so that what is fitted is the aggregated posterior. Of a code of
    codewords it is their numbers, with what the model is told: `sample`, the rate and the ELBO are then those under
    the fitted prior, which is bound to that codebook.

    Arguments: `prior` a module of `priors` with a `fit`, such as `GaussianMixture(model.latent, components=10)`, or its
    class or `partial`, which is built for this model: `PixelCNN`; None for the model's own. At most `rows` rows are
    read.
    Returns: the fitted prior, which is now the model's.
    Raises: TypeError for a prior that cannot be fitted or sampled, or one of another kind of code; ValueError for one
    of another number of units, grid, codebook or context.
    Reference: From Variational to Deterministic Autoencoders (Ghosh et al., 2020), arXiv:1903.12436, section 4.

    Example:
        >>> from narrows.priors import GaussianMixture
        >>> from narrows.recipes import autoencoder
        >>> model, _ = autoencoder((8,), latent=2)
        >>> _ = fit_prior(model, torch.rand(50, 8), GaussianMixture(2, components=2))
        >>> model.sample(3).mean.shape
        torch.Size([3, 8])
    """
    chosen: Any = model.prior if prior is None else prior if isinstance(prior, nn.Module) else _built(model, prior)
    if not hasattr(chosen, "fit"):
        if prior is None and chosen is not None:
            return chosen  # a fixed prior has nothing to fit
        raise TypeError(
            "a prior that is fitted to codes has a method fit(z) and can be sampled; got "
            f"{type(chosen).__name__}. Take GaussianMixture(latent) or MultivariateGaussian(latent) of narrows.priors"
        )
    if isinstance(model.prior, Hierarchy):
        raise TypeError(
            "the prior of this code is the way down through its rungs, which the decoder needs: it was learned with "
            f"the model and {type(chosen).__name__} cannot take its place"
        )
    if isinstance(model, Diffusion):
        raise TypeError(
            "the code of a diffusion is noise by construction, and its prior N(0, I) fits already: there is nothing to "
            "fit. Sample with model.sample(n) or model.ancestral(n)"
        )
    if labels_of(model):
        raise TypeError(
            "the first units of this code are a label, whose prior is no matter of fitting numbers: sample with a "
            "label, model.draw(n), or train a model without labels in its code"
        )
    few = as_rows(data)
    few = few.take(torch.arange(min(len(few), rows)))
    if hasattr(model.posterior, "embed") or hasattr(chosen, "codebook"):
        return _described(model, _fit_to_codewords(model, few, chosen, seed))
    if chosen.latent != model.latent:
        raise ValueError(f"the model's code has {model.latent} units; this prior is for {chosen.latent}")
    if getattr(chosen, "discrete", False) != isinstance(model.posterior, Concrete):
        raise TypeError(
            f"{type(chosen).__name__} cannot be the prior of a {type(model.posterior).__name__} code: Concrete codes "
            "are choices among classes and take Categorical(latent), all others are numbers and take any other prior"
        )
    with draws.seeded(seed, 12, 0):
        chosen.to("cpu").fit(codes(model, few, draw=True))
    model.posterior.prior = chosen.to(device_of(model))
    return _described(model, chosen)


def _built(model: Model, prior: Callable[..., nn.Module]) -> nn.Module:
    """A prior of some class for the codes of this model."""
    asks = inspect.signature(prior).parameters
    posterior: Any = model.posterior
    if hasattr(posterior, "embed") != ("codebook" in asks):
        raise TypeError(_other_kind(model, getattr(getattr(prior, "func", prior), "__name__", str(prior))))
    if hasattr(posterior, "embed"):
        return over(prior, getattr(posterior, "grids", posterior.grid), posterior.codebook, model.context)
    return prior(model.latent, **({"context": model.context} if "context" in asks else {}))


def _other_kind(model: Model, name: str) -> str:
    posterior: Any = model.posterior
    if hasattr(posterior, "embed"):
        return (
            f"{name} cannot be the prior of a {type(posterior).__name__} code, which is numbers of codewords in a grid "
            f"of {posterior.grid}: take Codewords, PixelCNN or Transformer, built as prior(grid, codebook)"
        )
    return (
        f"{name} is over numbers of codewords, and a {type(posterior).__name__} code has none: take a prior over "
        f"units, such as GaussianMixture({model.latent})"
    )


def _fit_to_codewords(model: Model, data: Rows, chosen: Any, seed: int) -> nn.Module:
    """Fits a prior to the numbers of the codewords, where the model lies, and gives it to the model."""
    posterior: Any = model.posterior
    if not (hasattr(posterior, "embed") and hasattr(chosen, "codebook")):
        raise TypeError(_other_kind(model, type(chosen).__name__))
    if getattr(chosen, "context", 0) not in (0, model.context):
        raise ValueError(
            f"the model is told {model.context} features of every row; this prior is to be told {chosen.context}"
        )
    chosen.to(next(model.parameters())).begin()
    chosen.check(posterior)
    own, posterior.prior = posterior.prior, chosen  # not fitted yet, it costs nothing to ask
    try:
        index: list[Any] = []
        told: list[Tensor] = []
        for batch in batches(model, data):
            index.append(model.encode(batch.x, batch.context).index)
            told += [] if batch.context is None else [batch.context]
        with draws.seeded(seed, 12, 0):
            chosen.fit(torch.cat(index), torch.cat(told) if told else None)
    except BaseException:
        chosen.begin()
        posterior.prior = own
        raise
    chosen.sign(posterior)
    return chosen


def _described(model: Model, chosen: nn.Module) -> nn.Module:
    """Writes a prior into the model's description; sizes that the model decides are left out."""
    if model.spec is not None:
        own = describe("prior", chosen)
        for arguments in own.values():
            for size in ("latent", "grid", "grids", "codebook", "context"):
                arguments.pop(size, None)
        model.spec = {**model.spec, "arguments": {**model.spec["arguments"], "prior": own}}
    return chosen


FLOOR = 1e-8  # of the largest direction's metric: what a decoder hardly sees is stretched by no more than 10,000


@torch.no_grad()
def canonical_latent(model: Model, data: Rows | Tensor, rows: int = 50_000) -> Model:
    r"""The same model with its code in canonical axes: of all equivalent latents, the one that can be read.

    Any invertible affine change of a deterministic code is undone by the decoder, so its axes mean nothing until they
    are chosen. Here codes become uncorrelated with mean 0 and variances that fall, in units of x, along directions
    in which the decoder moves by 1 on average:

    .. math:: G = E[J^\top J] = L L^\top, \quad L^\top \operatorname{Cov}(z) L = V \Lambda V^\top, \quad
              z' = V^\top L^\top (z - E z)

    with J the slope of E[x|z] at the code (G from at most 1,000 rows). For a linear model these are the principal
    components. Where the code is held to N(0, I), only the order and the signs of its units are free: they are ordered
    by rate, or by variance where there is none. Each unit's sign makes the largest entry of its mean slope positive.

    Returns: a copy, in evaluation mode; its reconstructions are those of `model`, a prior fitted to the codes is moved
        with them, and it has the same description, or none where a network other than Mlp and Conv got a layer more.
    Arguments: at most `rows` rows are read for the codes' moments.
    Raises: TypeError for a posterior or prior whose axes cannot be changed; ValueError for fewer than 2 rows.

    Example:
        >>> from narrows.recipes import autoencoder
        >>> x = torch.rand(50, 8)
        >>> model = canonical_latent(autoencoder((8,), latent=3)[0], x)
        >>> covariance = torch.cov(codes(model, x).T, correction=0)
        >>> bool((covariance - covariance.diag().diag()).abs().max() < 1e-5)
        True
    """
    prior = model.prior
    if type(model.posterior) not in (Deterministic, Gaussian):
        raise TypeError(
            "canonical_latent knows deterministic and Gaussian codes, whose axes a linear layer can change; this "
            f"model's posterior is {type(model.posterior).__name__}"
        )
    if not (prior is None or isinstance(prior, (StandardNormal, MultivariateGaussian, GaussianMixture))):
        raise TypeError(
            "the code can be turned with a normal prior or a mixture of normals, and not within "
            f"{type(prior).__name__}, whose axes are fixed"
        )
    few = as_rows(data)
    few = few.take(torch.arange(min(len(few), rows)))
    if len(few) < 2:
        raise ValueError(f"the codes' covariance takes at least 2 rows; got {len(few)}")
    z = codes(model, few).double()
    slopes = _slopes(copy.deepcopy(model).cpu().double().eval(), z[:: -(-len(z) // 1000)])
    if isinstance(model.posterior, Deterministic) and not isinstance(prior, StandardNormal):
        mean, change, back = _turn(z, slopes.metric)
    else:
        used = active_units(model, few)
        order = (used.variance if used.rate is None else used.rate).argsort(descending=True)
        mean, change = z.new_zeros(model.latent), torch.eye(model.latent, dtype=z.dtype)[order]
        back = change.T
    along = slopes.mean @ back  # (values of x, latent)
    sign = along.gather(0, along.abs().argmax(0, keepdim=True)).sign()[0]
    sign[sign == 0] = 1
    change, back = sign[:, None] * change, back * sign
    turned = copy.deepcopy(model).eval()
    _compose(turned, mean, change, back)
    if isinstance(prior, (MultivariateGaussian, GaussianMixture)):
        moved: Any = turned.prior
        scale = change @ moved.scale.double().cpu()
        moved.mean.copy_((moved.mean.double().cpu() - mean) @ change.T)
        moved.scale.copy_(torch.linalg.cholesky(scale @ scale.mT))
    return turned


class _Slopes(NamedTuple):
    """J, the slope of E[x|z], (values of x, D), at the codes of some rows."""

    mean: Tensor  # E[J]
    metric: Tensor  # (D, D) E[J^T J]


def _slopes(model: Model, codes: Tensor) -> _Slopes:
    """A few rows at a time: u -> J^T u is linear in u, and its derivative along unit j is column j of J."""
    d, latent = int(torch.Size(model.shape).numel()), model.latent
    mean = torch.zeros(d, latent, dtype=torch.float64)
    metric = torch.zeros(latent, latent, dtype=torch.float64)
    for z in codes.split(max(1, 4_000_000 // (d * latent))):
        with torch.enable_grad():
            z = z.clone().requires_grad_()
            x = model.decode(z).mean
            u = torch.zeros_like(x, requires_grad=True)
            (pulled,) = torch.autograd.grad(x, z, u, create_graph=True)  # (b, D)
        units = torch.eye(latent, dtype=z.dtype)[:, None].expand(-1, *z.shape)
        columns = [torch.autograd.grad(pulled, u, unit, retain_graph=True)[0].flatten(1) for unit in units]
        slope = torch.stack(columns, -1)  # (b, d, D)
        mean += slope.sum(0) / len(codes)
        slope = slope.flatten(0, 1)
        metric += slope.T @ slope / len(codes)
    return _Slopes(mean, metric)


def _turn(z: Tensor, metric: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, change and its inverse to uncorrelated axes, z' = change (z - mean)."""
    values, vectors = torch.linalg.eigh(metric)
    root = values.clamp_min(max(FLOOR * float(values[-1]), 1e-300)).sqrt()
    left = vectors * root  # L
    covariance = torch.cov(z.T, correction=0).reshape(len(metric), -1)
    v = torch.linalg.eigh(left.T @ covariance @ left).eigenvectors.flip(1)
    return z.mean(0), v.T @ left.T, (vectors / root) @ v


def _compose(model: Model, mean: Tensor, change: Tensor, back: Tensor) -> None:
    """Puts z' = change (z - mean) behind the encoder and its inverse before the decoder."""
    latent, place = model.latent, next(model.parameters())
    gaussian = isinstance(model.posterior, Gaussian)
    behind = torch.block_diag(change, change.abs()) if gaussian else change  # widths have no sign
    last, first = _edge(model.encoder, -1), _edge(model.decoder, 0)
    if last is None:
        last = _layer(torch.eye(len(behind)), place)
        model.encoder, model.spec = nn.Sequential(model.encoder, nn.Flatten(), last), None
    if first is None:
        first = _layer(torch.eye(latent), place)
        model.decoder, model.spec = nn.Sequential(first, model.decoder), None
    weight, bias = last.weight.double().cpu(), behind @ last.bias.double().cpu()
    bias[:latent] -= change @ mean
    last.weight.copy_(behind @ weight)
    last.bias.copy_(bias)
    weight, bias = first.weight.double().cpu()[:, :latent], first.bias.double().cpu()
    first.bias.copy_(bias + weight @ mean)
    first.weight[:, :latent] = (weight @ back).to(first.weight)


def _layer(weight: Tensor, like: Tensor) -> nn.Linear:
    layer = nn.Linear(len(weight), len(weight)).to(like)
    layer.weight.copy_(weight)
    nn.init.zeros_(layer.bias)
    return layer


def _edge(network: nn.Module, place: int) -> nn.Linear | None:
    """The linear layer of one of our networks that meets the code."""
    if isinstance(network, Mlp):
        return network.layers[place]  # type: ignore[return-value]
    return network.dense if isinstance(network, Conv) else None
