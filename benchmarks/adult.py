"""The UCI Adult table (32,561 mixed rows, without education-num, which repeats education) through `narrows fit` as it
is: are its rows likelier than under a tree of columns, and can synthetic rows stand in for them?

- likelihood: log p(x) of held-out rows in nats, importance-weighted with K draws, beside a Chow-Liu tree (Chow & Liu
  1968): the maximum spanning tree of the mutual informations between columns. Both are probabilities of the very values
  that are stored, each number a place on the table's own grid, and both price the seen cells only. The tree knows a
  number by its bin; within it, atoms have their shares, and what lies between them is even within neighbourhoods. How
  many bins and neighbourhoods, and what is added to counts, is chosen on the validation rows, column by column. A
  second tree may besides keep the share of every single value of the training rows, however rare.
- synthetic: what `nr.evaluate.synthetic` says of as many rows as were trained on, with income as target.
- augment: gradient-boosted trees for income on 100 and 1,000 real rows, and on these and 2,000 rows of a model that has
  seen these rows only, on 5,000 others.

    NARROWS_DATA=... python benchmarks/adult.py likelihood synthetic augment    # writes results/adult.json

Intervals are Student's 95 % over the seeds, of weights, order and split.
"""

import argparse
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from aggregated import interval
from torch import Tensor

import narrows as nr
from narrows import defaults
from narrows.baselines import fit_cells
from narrows.likelihoods import Column

TARGET = Path(__file__).parent / "results" / "adult.json"
BINS = (1, 2, 4, 8, 16, 32, 64, 128)
ADDED = (0.01, 0.03, 0.1, 0.3, 1.0)


class Grid(NamedTuple):
    """Cells of a column as whole numbers from 0: classes, or places on its grid counted from the lowest."""

    places: int
    low: int
    column: Column

    @classmethod
    def of(cls, x: Tensor, column: Column) -> "Grid":
        """From training cells."""
        if column.classes:
            return cls(column.classes, 0, column)
        at = ((x[~x.isnan()].double() - column.origin) / column.step).round().long()
        return cls(int(at.max() - at.min()) + 1, int(at.min()), column)

    def at(self, x: Tensor) -> Tensor:
        """Places of cells (n,), -1 where missing; what lies beyond the training rows goes to the nearest end."""
        found = x.nan_to_num(0.0).double()
        if not self.column.classes:
            found = (found - self.column.origin) / self.column.step - self.low
        return torch.where(x.isnan(), -1, found.round().long().clamp(0, self.places - 1))


def pieces(at: Tensor, places: int, many: int) -> Tensor:
    """Which of at most `many` neighbourhoods of about as many rows each place belongs to, (places,)."""
    counts = torch.bincount(at[at >= 0], minlength=places)
    share = (counts.cumsum(0) - counts).double() / counts.sum()  # of the rows below
    return (share * many).long().clamp_max(many - 1).unique(return_inverse=True)[1]


def smoothed(grid: Grid, at: Tensor, many: int, own: float) -> Tensor:
    """Shares of the places, (places,): of atoms and of `own` of the rest as counted, what is left even within `many`
    neighbourhoods, one row more in two of them."""
    counts = torch.bincount(at[at >= 0], minlength=grid.places).double()
    atoms = grid.at(torch.tensor(grid.column.atoms))
    heaps = torch.zeros_like(counts)
    heaps[atoms] = counts[atoms]
    which = pieces(torch.where(torch.isin(at, atoms), -1, at), grid.places, many)
    loose = counts - heaps
    held = torch.zeros(int(which.max()) + 1, dtype=torch.float64).index_add_(0, which, loose) + 0.5
    even = (held / torch.bincount(which))[which]
    rest = own * loose / loose.sum() + (1 - own) * even / even.sum()
    return (heaps + (loose.sum() + 1) * rest) / (counts.sum() + 1)


class Tree(NamedTuple):
    """Columns that each know one other, by bins (places,) of each; log-probabilities of a place within its bin."""

    parents: list[tuple[int, int]]  # (child, parent), leaves last; the first is (root, -1)
    bins: list[Tensor]
    within: list[Tensor]
    tables: list[Tensor]  # in that order, p(bin of the child | bin of the parent), (bins, bins of the parent)

    @classmethod
    def fit(cls, at: list[Tensor], bins: list[Tensor], shares: list[Tensor], added: float) -> "Tree":
        """The maximum spanning tree of mutual informations between bins, counts with `added` to each."""
        sizes = [int(which.max()) + 1 for which in bins]
        seen = [column >= 0 for column in at]
        held = [which[column.clamp_min(0)] for which, column in zip(bins, at, strict=True)]

        def joint(a: int, b: int) -> Tensor:
            both = seen[a] & seen[b]
            flat = torch.bincount(held[a][both] * sizes[b] + held[b][both], minlength=sizes[a] * sizes[b])
            return flat.view(sizes[a], sizes[b]).double() + added / sizes[a] / sizes[b] * max(sizes[a], sizes[b])

        information = torch.zeros(len(at), len(at))
        for a in range(len(at)):
            for b in range(a):
                p = joint(a, b) / joint(a, b).sum()
                mutual = (p * (p / p.sum(0) / p.sum(1, keepdim=True)).log()).sum()
                information[a, b] = information[b, a] = float(mutual)
        found, left = [(0, -1)], set(range(1, len(at)))
        while left:  # Prim
            child, parent = max(
                ((c, p) for c in left for p, _ in found), key=lambda pair: float(information[pair[0], pair[1]])
            )
            found.append((child, parent))
            left.remove(child)
        tables = []
        for child, parent in found:
            counts = joint(child, parent) if parent >= 0 else joint(child, child).diag()[:, None]
            tables.append(counts / counts.sum(0))
        within = []
        for which, share in zip(bins, shares, strict=True):
            total = torch.zeros(int(which.max()) + 1, dtype=torch.float64).index_add_(0, which, share)
            within.append((share / total[which]).log())
        return cls(found, bins, within, tables)

    def log_prob(self, at: list[Tensor]) -> Tensor:
        """(n,) nats of the seen cells of rows: the missing ones are summed over, from the leaves up."""
        belief, out = {}, torch.zeros(len(at[0]), dtype=torch.float64)
        for c, (which, within) in enumerate(zip(self.bins, self.within, strict=True)):
            seen, place = at[c] >= 0, at[c].clamp_min(0)
            out += torch.where(seen, within[place], 0.0)
            hit = torch.nn.functional.one_hot(which[place], int(which.max()) + 1).double()
            belief[c] = torch.where(seen[:, None], hit, 1.0)
        for (child, parent), table in zip(reversed(self.parents), reversed(self.tables), strict=True):
            message = belief.pop(child) @ table  # (n, bins of the parent)
            if parent < 0:
                return out + message[:, 0].log()
            belief[parent] = belief[parent] * message
        raise ValueError("a tree has a root")


def chow_liu(train: Tensor, valid: Tensor, columns: tuple[Column, ...], memory: bool) -> tuple[Any, dict[str, Any]]:
    """Rows (n, columns) -> log p(rows), a tree whose bins and smoothing are the best on validation rows.

    With `memory` it may also keep the share of every single value of the training rows.
    """
    grids = [Grid.of(x, column) for x, column in zip(train.T, columns, strict=True)]
    at, held = ([g.at(x) for g, x in zip(grids, part.T, strict=True)] for part in (train, valid))
    shares, bins = [], []
    for grid, own, other in zip(grids, at, held, strict=True):
        if grid.column.classes:
            shares.append(torch.full((grid.places,), 1 / grid.places, dtype=torch.float64))
            bins.append(torch.arange(grid.places))
            continue
        tried = [
            smoothed(grid, own, many, part)
            for many in (8, 16, 32, 64, 128, 256, 1024)
            for part in ((0.0, 0.3, 0.6, 0.9, 0.98) if memory else (0.0,))
        ]
        shares.append(max(tried, key=lambda share: float(share[other[other >= 0]].log().mean())))
        bins.append(pieces(own, grid.places, 8))
    numbers = [c for c, grid in enumerate(grids) if not grid.column.classes]

    def worth(bins: list[Tensor], added: float) -> float:
        return float(Tree.fit(at, bins, shares, added).log_prob(held).mean())

    best, added = -float("inf"), 1.0
    for _ in range(2):
        for c in numbers:
            for many in BINS:
                trial = [*bins[:c], pieces(at[c], grids[c].places, many), *bins[c + 1 :]]
                found = worth(trial, added)
                if found > best:
                    best, bins = found, trial
        scores = {amount: worth(bins, amount) for amount in ADDED}
        added = max(scores, key=lambda amount: scores[amount])
        best = scores[added]
    tree = Tree.fit(at, bins, shares, added)

    def log_prob(x: Tensor) -> Tensor:
        return tree.log_prob([g.at(part) for g, part in zip(grids, x.T, strict=True)])

    return log_prob, {"bins": [int(which.max()) + 1 for which in bins], "added": added, "parents": tree.parents}


def trained(table: Any, seed: int, folder: Path | None = None) -> tuple[nr.Run, nr.data.Data]:
    """What `narrows fit` makes of a table where nothing is said; a run that is kept in `folder` is taken as it is."""
    data = nr.data.load(table, drop=["education-num"], seed=seed)
    if folder and (folder / "config.json").exists():
        return nr.load(folder), data
    model, objective = nr.recipes.vae(**defaults.arguments(data, "vae", {}), seed=seed)
    return nr.fit(model, objective, data, training=nr.Training(seed=seed), folder=folder, quiet=True), data


def likelihood(run: nr.Run, data: nr.data.Data, samples: int) -> dict[str, float]:
    """Nats a row of the test part, and of the differences on the same rows."""
    ours = nr.evaluate.log_likelihood(run.model, data.test, samples)
    columns = run.model.likelihood.columns
    found = {"VAE": ours.mean, "Monte Carlo error": ours.monte_carlo_error}
    cells = fit_cells(data.train.x, run.model.likelihood).log_prob(data.test.x)
    found["independent columns"] = float(cells.mean())
    for name, memory in (("tree", False), ("tree that keeps every value", True)):
        log_prob, chosen = chow_liu(data.train.x, data.valid.x, columns, memory)
        theirs = log_prob(data.test.x)
        found[name] = float(theirs.mean())
        gain = nr.evaluate.Mean.of(ours.values - theirs)
        found |= {f"VAE - {name}": gain.mean, f"its standard error over rows, {name}": gain.standard_error}
        print(name, chosen, flush=True)
    return found


def drawn(run: nr.Run, n: int, seed: int) -> Tensor:
    """Rows (n, columns) in model units."""
    with nr.draws.seeded(seed, 1), torch.no_grad():
        return torch.cat([run.model.sample(len(part)).sample() for part in torch.arange(n).split(4096)])


def synthetic(run: nr.Run, data: nr.data.Data, seed: int) -> dict[str, float]:
    """The figures of `nr.evaluate.synthetic`."""
    made = drawn(run, len(data.train), seed)
    found = nr.evaluate.synthetic(made, data.train, data.test, data.scaling, "income", rows=3000, seed=seed)
    print(found, flush=True)
    record: dict[str, float] = {}
    for name in ("marginals", "pairs", "told_apart", "utility", "closest", "copies", "membership"):
        for who, value in zip(("made", "columns", "real"), getattr(found, name), strict=True):
            if value is not None:
                record[f"{name}, {who}"] = value.mean
    return record | {"points of AUC lost": 100 * (found.utility.real.mean - found.utility.made.mean)}


def augment(table: Any, rows: int, more: int, seed: int) -> dict[str, float]:
    """AUC of income on 5,000 rows after training on few others, with and without rows of a model of these few."""
    order = torch.randperm(len(table), generator=torch.Generator().manual_seed(seed)).numpy()
    few, held = table.take(order[:rows]), table.take(order[-5000:])
    run, data = trained(few, seed)
    codec = data.scaling
    found = nr.evaluate.augmentation(
        codec.encode(few), drawn(run, more, seed), codec.encode(held), codec, "income", seed=seed
    )
    print(rows, found, flush=True)
    gain = found.both.mean - found.real.mean
    return {"real": found.real.mean, "real and synthetic": found.both.mean, "synthetic": found.made.mean, "gain": gain}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["likelihood", "synthetic", "augment"])
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("NARROWS_DATA", ".")) / "adult" / "adult.csv")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, help="folder in which trained models are kept, and found again")
    parser.add_argument("--samples", type=int, default=500)
    asked = parser.parse_args()
    record = json.loads(TARGET.read_text()) if TARGET.exists() else {}
    record["versions"] = {"torch": torch.__version__, "narrows": nr.__version__}

    def keep(part: str, runs: list[dict[str, float]]) -> None:
        record[part] = {name: interval([run[name] for run in runs]) for name in runs[0]} if len(runs) > 1 else {}
        record[part] |= {"runs": runs}
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps(record, indent=1) + "\n")
        print(part, json.dumps(runs[-1]), flush=True)

    if "augment" in asked.parts:
        table = nr.data.whole(asked.data)
        for rows in (100, 1000):
            runs: list[dict[str, float]] = []
            for seed in range(asked.seeds):
                runs.append(augment(table, rows, 2000, seed))
                keep(f"augment {rows}", runs)
    wanted = [part for part in ("likelihood", "synthetic") if part in asked.parts]
    whole: dict[str, list[dict[str, float]]] = {part: [] for part in wanted}
    for seed in range(asked.seeds if wanted else 0):
        run, data = trained(asked.data, seed, asked.runs and asked.runs / str(seed))
        for part in wanted:
            found = likelihood(run, data, asked.samples) if part == "likelihood" else synthetic(run, data, seed)
            whole[part].append(found)
            keep(part, whole[part])


if __name__ == "__main__":
    main()
