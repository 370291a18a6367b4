"""Which class a row belongs to, by a model that was told of classes."""

import math
from typing import Any

import torch
from torch import Tensor

from narrows import draws
from narrows.data import Data, Rows
from narrows.evaluate.common import Mean, batches, codes, inputs
from narrows.evaluate.likelihood import _log_weights
from narrows.labels import labels_of
from narrows.models import Model

__all__ = ["accuracy", "log_joint", "predict_proba"]


@torch.no_grad()
def predict_proba(
    model: Model, data: Rows | Tensor, prior: Tensor | None = None, samples: int = 64, seed: int = 0
) -> Tensor:
    r"""p(y|x) of every class, (n, C) rows that sum to 1.

    Where the label is part of the code (recipes semi_supervised and semi_supervised_aae) it is what the encoder says,
    q(y|x). Where labels are the context (one-hot), it comes from p(x|y) by Bayes' rule,

    .. math:: p(y \mid x) = \frac{p(x \mid y)\, p(y)}{\sum_{y'} p(x \mid y')\, p(y')}

    with p(x|y) from `samples` importance-weighted draws, the same for every row and class, so that the same row has
    the same classes whatever stands beside it. Labels that the rows bring are not looked at.

    Arguments: `prior` p(y), (C,) probabilities, None for equal ones; Bayes' rule only.
    Raises: TypeError for a model that was told no classes; ValueError for a prior of another size.
    """
    classes = labels_of(model)
    if classes:
        if prior is not None:
            raise TypeError("the code of this model says by itself how likely the classes are: leave prior away")
        return codes(model, data)[:, :classes]
    if not model.context:
        raise TypeError(
            "nobody told this model of classes, so it cannot tell them apart. Use recipe conditional or "
            "semi_supervised with labels, or train a classifier on its codes: finetune(run, X, y)"
        )
    return log_joint(model, data, prior, samples, seed).softmax(1)


@torch.no_grad()
def log_joint(
    model: Model, data: Rows | Tensor, prior: Tensor | None = None, samples: int = 64, seed: int = 0
) -> Tensor:
    """Log p(x, y) of every row and class, (n, C) nats, for a model whose context are the labels, one-hot.

    Arguments, draws and errors as in `predict_proba`; the sum of exp over classes is p(x).
    """
    classes = model.context
    p = torch.full((classes,), 1 / classes, dtype=torch.float64) if prior is None else prior.double().cpu()
    if p.shape != (classes,) or bool((p < 0).any()) or abs(float(p.sum()) - 1) > 1e-6:
        raise ValueError(f"prior is one probability for each of {classes} classes, together 1; got {prior}")
    found = []
    for batch in batches(model, data, 256):
        scores = []
        for one in torch.eye(classes, dtype=batch.x.dtype, device=batch.x.device):
            told = batch._replace(context=one.expand(len(batch.x), -1))
            with draws.seeded(seed, 15, 0), draws.common():
                log_w = torch.cat(list(_log_weights(model, told, samples, 16)))  # (K, B)
            scores.append(log_w.logsumexp(0).cpu())
        found.append(torch.stack(scores, 1) - math.log(samples) + p.log())
    return torch.cat(found)


def accuracy(model: Model, data: Data, most: int = 2000, seed: int = 0) -> dict[str, Any] | None:
    """The share of labelled rows of valid and test whose class is predicted right, beside logistic regression.

    The regression learns from the labelled training rows (at most 10,000) with scikit-learn's standard
    settings. None where the model was told no classes, or there are none to predict. At most `most` rows a part.
    """
    known = [p for p in (data.train, data.valid, data.test) if p.label is not None and bool((p.label >= 0).any())]
    told = labels_of(model) == len(data.classes or []) or (data.context and data.options.context == "label")
    if not data.classes or not told or not known or known[0] is not data.train:
        return None
    from sklearn.linear_model import LogisticRegression

    train = _labelled(data.train, 10_000)
    y = train.label.cpu().numpy()  # type: ignore[union-attr]
    regression = None
    if len(set(y.tolist())) > 1:
        regression = LogisticRegression(max_iter=1000).fit(inputs(model, train).flatten(1).double().numpy(), y)
    counts = torch.bincount(torch.from_numpy(y), minlength=len(data.classes)).double()
    prior = None if labels_of(model) else counts / counts.sum()
    found = {}
    for name, part in (("valid", data.valid), ("test", data.test)):
        if part not in known:
            continue
        few = _labelled(part, most)
        right = few.label.cpu()  # type: ignore[union-attr]
        record = {"model": Mean.of((predict_proba(model, few, prior, seed=seed).argmax(1) == right).double())}
        if regression is not None:
            guess = torch.from_numpy(regression.predict(inputs(model, few).flatten(1).double().numpy()))
            record["logistic"] = Mean.of((guess == right).double())
        found[name] = record | {"rows": len(few)}
    return {"labels": len(y), "parts": found}


def _labelled(rows: Rows, most: int) -> Rows:
    """The first rows that have a label."""
    known: Tensor = rows.label >= 0  # type: ignore[assignment, operator]
    return rows.take(torch.nonzero(known)[:most, 0])
