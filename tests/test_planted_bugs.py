"""Would the exact tests notice? The usual bugs of this field, planted one at a time in a copy of the library.

Each must be caught by a test of test_exact.py, test_likelihoods.py, test_divergences.py or the file that stands beside
its module below, which runs in a process of its own against the copy; that test is recorded (`pytest --junit-xml`, or
`-rP` on the screen). An untouched copy must pass, or a catch would mean nothing. The processes are forked from one that
has imported torch already, which saves that many start-ups.
"""

import multiprocessing
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIBRARY = HERE.parent / "src" / "narrows"
NORMAL = "Normal(mean, self.sigma.expand_as(mean), validate_args=False)"
BARE = 'type("Bare", (Normal,), {"log_prob": lambda self, x: -(((x - self.loc) / self.scale) ** 2) / 2})'

# what these files import first or last, the library itself excepted
PRELOAD = [
    "pytest",
    "scipy.integrate",
    "scipy.stats",
    "torch.distributed.tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.func",
]

# what is wrong, file, right text, wrong text
BUGS = [
    ("mean over the units of the code", "contract", "self.rates.sum(-1)", "self.rates.mean(-1)"),
    ("mean over the values of x", "likelihoods", "return px.log_prob(x)\n", "return px.log_prob(x) / x[0].numel()\n"),
    ("mean over the seen values", "likelihoods", ".flatten(1).sum(1)", ".flatten(1).mean(1)"),
    ("sum over the draws", "objectives", "else t.mean(0)", "else t.sum(0)"),
    ("IWAE without log K", "objectives", " - math.log(len(log_w))", ""),
    ("Gaussian without its normaliser", "likelihoods", NORMAL, NORMAL.replace("Normal", BARE)),
    ("logistic without its outer tails", "likelihoods", "torch.where(first | last, 0.0, inner)", "inner"),
    (
        "beta on the distortion",
        "objectives",
        "_average(distortion + beta * rate)",
        "_average(beta * distortion + rate)",
    ),
    ("beta not used", "objectives", "_average(distortion + beta * rate)", "_average(distortion + rate)"),
    ("free bits without beta", "objectives", "loss + beta * torch.relu", "loss + torch.relu"),
    (
        "z detached",
        "posteriors/densities",
        "return Code(z, rates, None, None, nothing",
        "return Code(z.detach(), rates, None, None, nothing",
    ),
    ("rate detached", "posteriors", "rates = kl(q, p)", "rates = kl(q, p).detach()"),
    ("log q at a detached z", "contract", "q.log_prob(z).flatten()", "q.log_prob(z.detach()).flatten()"),
    ("KL the other way round", "divergences", "(q.base_dist, p.base_dist)", "(p.base_dist, q.base_dist)"),
    (
        "rows of another draw",
        "contract",
        "t.repeat(samples, *[1] * (t.dim() - 1))",
        "t.repeat_interleave(samples, 0)",
    ),
    ("codes not cut off from the critic", "divergences", "fake = z.detach()", "fake = z"),
    ("the encoder moves the critic", "divergences", "{name: weight.detach() for", "{name: weight for"),
    ("the critic climbs down", "divergences", "told) - value\n", "told) + value\n"),
    (
        "the critic's penalty forgotten",
        "divergences",
        "self.game.penalty * self._slope(fake, real, told) - value",
        "-value",
    ),
    ("a slope of 1 for every game", "divergences", ".sqrt() - self.game.slope)", ".sqrt() - 1)"),
    (
        "codes and draws exchanged",
        "divergences",
        "self.game.fake(self.critic(fake, *told))",
        "self.game.fake(self.critic(real, *told))",
    ),
    (
        "context of another draw",
        "divergences",
        "context.repeat(len(z) // len(context), 1)",
        "context.repeat_interleave(len(z) // len(context), 0)",
    ),
    ("biased MMD", "divergences", "(k(a, a).sum() - len(a)) / max(len(a) * (len(a) - 1), 1)", "k(a, a).mean((0, 1))"),
    ("saturating where it should not", "divergences", "if self.saturating else", "if not self.saturating else"),
    ("slices not sorted", "divergences", ".sort(0).values for a", " for a"),
    (
        "frames not orthonormal",
        "divergences",
        "torch.linalg.qr(frames).Q.flatten",
        "torch.nn.functional.normalize(frames, dim=2).flatten",
    ),
    ("Pearson without its linear term", "divergences", "v.square() / 4 + v", "v.square() / 4"),
    ("discrepancy without its weight", "objectives", "self.discrepancy.weight * found_gap.model", "found_gap.model"),
    ("counts without x!", "likelihoods", " - log_mean.exp() - torch.lgamma(x + 1)", " - log_mean.exp()"),
    (
        "odds the other way round",
        "likelihoods",
        "log_theta.exp(), log_mean - log_theta",
        "log_theta.exp(), log_theta - log_mean",
    ),
    ("a library that is not shared out", "likelihoods", "said.flatten(1).log_softmax(1).view_as(said)", "said"),
    ("components in one place", "likelihoods", "location + self.start", "location + 0.5"),
    (
        "own row weighed as any other",
        "divergences/correlation",
        "masked_fill(own, -math.log(rows))",
        "masked_fill(own, other)",
    ),
    ("others weighed by N B", "divergences/correlation", "(rows - 1) / (rows * (size - 1))", "1 / (rows * size)"),
    ("units without their weights", "divergences/correlation", "(each + log_weight[..., None])", "each"),
    (
        "columns shuffled together",
        "divergences/correlation",
        "noise.argsort(0)",
        "noise[:, :1].argsort(0).expand_as(z)",
    ),
    ("shuffled codes with a gradient", "divergences/correlation", "z.detach().gather(", "z.gather("),
    ("covariance of means for codes", "divergences/correlation", 'if self.of == "codes":', 'if self.of == "none":'),
    ("the diagonal paid twice", "divergences/correlation", "(self.diagonal - 1) * error", "self.diagonal * error"),
    ("InfoVAE's rate weighed by alpha", "recipes/disentangling", '{"beta": 1 - alpha}', '{"beta": alpha}'),
    ("TopK of absolute values", "activations", "h.topk(self.active, 1)", "h.abs().topk(self.active, 1)"),
    ("BatchTopK with k for the batch", "activations", "self.active * len(h)", "self.active"),
    ("thresholds that ignore their size", "activations", "theta.detach() * near", "near"),
    ("AuxK of living units", "penalties", "h.masked_fill(~dead, -math.inf)", "h"),
    ("AuxK teaches its own error", "penalties", "found.px.mean.detach()", "found.px.mean"),
    ("target activity the other way round", "penalties", "(target, target / active)", "(active, active / target)"),
    (
        "MIWAE over the wrong axis",
        "objectives",
        "t.unflatten(0, (groups, -1)).transpose(0, 1)",
        "t.unflatten(0, (groups, -1))",
    ),
    ("Renyi without its power", "objectives", ".log1p() / power", ".log1p()"),
    ("STL keeps the score", "gradients", "log_q=log_q - (score - score.detach())", "log_q=log_q"),
    ("DReG with single weights", "gradients", "slope * share.reshape(-1, 1)", "slope"),
    ("rewards not cut off", "gradients", "else drawn.distortion).detach()", "else drawn.distortion)"),
    ("leave-one-out with itself", "gradients", "(f.sum(0) - f) / (len(f) - 1)", "f.sum(0) / len(f)"),
    ("VIMCO climbs down", "gradients", "(value.detach() - without)", "(without - value.detach())"),
    ("PIWAE's decoder from MIWAE", "gradients", "_only_slope(encoder + decoder)", "_only_slope(encoder)"),
    (
        "triangular system the wrong way round",
        "divergences/closed",
        "(theirs, torch.cat([ours, away]",
        "(ours, torch.cat([theirs, away]",
    ),
    ("volumes exchanged", "divergences/closed", "volumes[0] - volumes[1]", "volumes[1] - volumes[0]"),
    ("a masked unit that reads itself", "flows", "last = torch.arange(latent)", "last = torch.arange(1, latent + 1)"),
    ("steps that do not stretch", "flows", "log_det + stretch.sum(-1)", "log_det"),
    ("planar steps that fold", "flows", "u = u + (allowed - along)", "u = u + 0 * (allowed - along)"),
    ("the way back stretches as the way there", "flows", "return e, -transform", "return e, transform"),
    ("log q of the wrong sign of stretch", "posteriors", "base.log_prob(e) - log_det", "base.log_prob(e) + log_det"),
    ("a Cholesky factor without its corner", "posteriors", "scale[:, rows, columns] = below", "pass"),
    ("one Gumbel logarithm too few", "draws", "-(-u.log()).log()", "-(-u.log())"),
    ("soft draws in evaluation", "posteriors", "elif self.training and self.temp", "elif self.temp"),
    (
        "codes not brought to their width",
        "priors/learned",
        "return e, log_det - self.width.log().sum()",
        "return e, log_det",
    ),
    ("a chain that leaves out its width", "priors/learned", ".sum(-1) - self.prior.width.log().sum()", ".sum(-1)"),
    (
        "pseudo-inputs of the first alone",
        "priors/learned",
        "self.given(self.hidden(self.inputs,",
        "self.given(self.hidden(0 * self.inputs,",
    ),
    ("directions of any length", "networks", "normalize(self.weight, dim=1)", "self.weight"),
    ("a label's entropy forgotten", "labels", "weight * (log_weight - log_p)", "weight * -log_p"),
    (
        "classes not weighed",
        "labels",
        "-(weight.T * log_p.view(samples, q.classes, -1)).sum(1)",
        "-log_p.view(samples, q.classes, -1).mean(1)",
    ),
    ("known labels not used", "labels", "known = (batch.label >= 0)", "known = (batch.label < -1)"),
    (
        "classes and draws exchanged",
        "labels",
        "log_p.view(samples, q.classes, -1)",
        "log_p.view(q.classes, samples, -1).transpose(0, 1)",
    ),
    ("log q of another class", "labels", "(y * log_y).sum(-1) + q", "log_y.amax(-1) + q"),
    (
        "other draws for every class",
        "evaluate/classes",
        "draws.seeded(seed, 15, 0)",
        "draws.seeded(seed, 15, len(scores))",
    ),
    ("equal classes whatever the prior", "evaluate/classes", " + p.log()", ""),
    ("cells without their volume", "evaluate/integral", "torch.cat(value) + d * cells.side.log()", "torch.cat(value)"),
    ("cubature without dz/du", "evaluate/integral", "return density + torch", "return 0 * density + torch"),
    ("annealed weights of whole temperatures", "evaluate/annealed", "(b - before) * at", "b * at"),
    ("moves that are never refused", "evaluate/annealed", "< accepted\n", "< 1\n"),
    ("refining down", "evaluate/gap", "h.grad = -slope", "h.grad = slope"),
    ("the last state kept, not the best", "evaluate/gap", "better = gain.mean(0) > 2", "better = gain.mean(0) < 2"),
    ("a refined bound without its rate", "evaluate/gap", " - code.rate).unflatten", ").unflatten"),
    ("spread without the noise", "evaluate/uncertainty", "+= _variance(px).double()", "+= 0 * _variance(px).double()"),
    ("metric without D", "tasks/walks", "2 / z.shape[1] * log_p", "3 / z.shape[1] * log_p"),
    ("arithmetic the other way round", "tasks/walks", "(means[0] - means[1])", "(means[1] - means[0])"),
    ("E-steps on other rows", "training/em", "h[index], means[index]", "h[: len(index)], means[index]"),
    ("precisions multiplied", "posteriors/rungs", "total = ours + theirs", "total = ours * theirs"),
    ("the other's precision", "posteriors/rungs", "said * ours + mean * theirs", "said * theirs + mean * ours"),
    ("rungs merged upside down", "posteriors/rungs", "return found[::-1]\n", "return found\n"),
    ("a closed rate where there is none", "posteriors/rungs", "sampled[:, top:]", "_closed(found, slice(top, None))"),
    ("noise in the place of codes", "posteriors/rungs", "z = own if known else", "z = own if not known else"),
    ("codes side by side, bottom first", "posteriors/rungs", "torch.cat(parts[::-1], 1)", "torch.cat(parts, 1)"),
    ("a rung deaf to the one above", "priors/rungs", "[rung - 1](state, context)", "[rung - 1](0 * state, context)"),
    ("the wrong rungs kept", "priors/rungs", "if rung < keep else", "if rung >= keep else"),
    ("the top's temperature for all", "priors/rungs", "[t for t, units in zip", "[many[0] for t, units in zip"),
    ("a density that does not narrow with its draws", "priors/rungs", "self.width * sigma).sum(-1)", "sigma).sum(-1)"),
    ("free bits of units in a ladder", "objectives", "model.by_rung(each) if isinstance", "each if isinstance"),
    ("a codeword farthest away", "posteriors/quantised", "v, vectors.T, alpha=-1)", "v, vectors.T, alpha=1)"),
    (
        "codewords without their length",
        "posteriors/quantised",
        "torch.addmm(vectors.square().sum(1) / 2, ",
        "torch.addmm(0 * vectors[:, 0], ",
    ),
    (
        "averages of sums without counts",
        "posteriors/quantised",
        "self.sums[book] / count, self",
        "self.sums[book], self",
    ),
    (
        "averages that move in evaluation",
        "posteriors/quantised",
        "learning = self.training and draw",
        "learning = draw",
    ),
    ("commitment that moves the codebook alone", "posteriors/quantised", "own - e + slope[:, part]", "own - e"),
    (
        "penalties of the mean vector",
        "posteriors/quantised",
        "penalty.view(len(h), -1).sum(1)",
        "penalty.view(len(h), -1).mean(1)",
    ),
    (
        "levels that all see the same",
        "posteriors/quantised",
        "left = left - e\n            found",
        "left = left - 0 * e\n            found",
    ),
    (
        "codewords revived by one vector",
        "posteriors/quantised",
        "draws.some(self.codebook, v), ",
        "draws.some(self.codebook, v)[:1], ",
    ),
    ("a rotation without its length", "posteriors/quantised", "_valued(e, scale * turned)", "_valued(e, turned)"),
    ("levels off by a half", "posteriors/scalars", ".tanh() * half - offset", ".tanh() * half"),
    ("codewords of another place", "priors/codewords", "log_p[places, index", "log_p[places.flip(0), index"),
    ("a step for the sum of all", "noise", "0.5 * self.steps * torch.expm1(now", "0.5 * torch.expm1(now"),
    ("steps priced from the wrong end", "noise", "torch.expm1(now - before)", "-torch.expm1(before - now)"),
    ("old noise kept whole", "noise", "(1 - c).sqrt() * noise + c.sqrt()", "noise + c.sqrt()"),
    ("no second look", "noise", "turn / 2 * (turned", "0 * turn * (turned"),
    ("weights of single steps", "noise", "0.5 * self.steps * torch.expm1(gap)", "0.5 * torch.expm1(gap)"),
    ("the top forgotten", "posteriors/noised", "rates = found.rates + repeated", "rates = found.rates + 0 * repeated"),
    ("z_0 for x", "diffusion", "encoder.back(rise * first)", "encoder.back(first)"),
    (
        "levels seen through sigma, not its square",
        "likelihoods/levels",
        "[x - 0.5, _said(sigma.square() * (",
        "[x - 0.5, _said(sigma * (",
    ),
    ("a bound of codes without their width", "priors/diffusion", ".sum(1) - self.width.log().sum()", ".sum(1)"),
    ("a code in use called collapsed", "training/alarms", "return not units.by_variance.any() and", "return True or"),
    ("average of the weights the wrong way round", "training/average", "1 - kept)", "kept)"),
    ("average without its gentle start", "training/average", "min(self.share, (1 + step) / (10 + step))", "self.share"),
    ("a step that is left out is counted", "training/adam", "1 if left_out is None else 1 - left_out", "1"),
    ("the average goes on from the average", "training/average", "self._set(raw)", "pass"),
    ("a cell forgets its input", "networks/cells", "return x + y if self.residual else y", "return y"),
    ("cells begin at full strength", "networks/cells", "layers[-1].weight.mul_(scale)", "layers[-1].weight.mul_(1)"),
    ("odd halves rounded down", "networks/cells", "-(-size[0] // 2**times)", "max(size[0] // 2**times, 1)"),
    ("prior of maps without its way past z", "priors/maps", "6, state + more", "6, state"),
    ("what a rung says is not taken in", "priors/maps", "self.after[rung](state + taken)", "self.after[rung](state)"),
    (
        "the state is not enlarged after the top",
        "priors/maps",
        "state = larger(state, self.sizes[rung])",
        "state = state.new_zeros(len(state), self.width, *self.sizes[rung])",
    ),
    ("q moved by x alone, not in the prior's units", "posteriors/maps", "mean + sigma * move", "mean + move"),
    ("q scaled by x alone", "posteriors/maps", "sigma * (softplus(s + ONE) + 1e-6)", "softplus(s + ONE) + 1e-6"),
    (
        "a codeword that reads itself",
        "networks/masked",
        "self.span = reach, first, reach + (not first)",
        "self.span = reach, first, reach + 1",
    ),
    ("a blind spot", "networks/masked", "self.left(window) + self.across(above)", "self.left(window)"),
    (
        "a level that reads itself",
        "networks/masked",
        "pad(self.level(index[..., :-1]).cumsum(-2), (0, 0, 1, 0))",
        "self.level(index).cumsum(-2)",
    ),
    ("attention to what is to come", "networks/masked", "is_causal=cache is None", "is_causal=False"),
    ("attention to an empty cache", "networks/masked", "k, v = cache[:, :, :, : place + 1]", "k, v = cache"),
    ("gates that are told nothing", "networks/masked", "x if told is None else x + told", "x"),
    (
        "one uniform for all codewords",
        "priors/codes",
        "u[start : start + ROWS, slot, None]",
        "u[start : start + ROWS, :1]",
    ),
    (
        "another codebook not noticed",
        "priors/codewords",
        "if self.known.any() and not",
        "if self.known.isnan().any() and not",
    ),
    (
        "the prior of a codebook that has moved",
        "training/loop",
        "model.prior.begin()",
        "model.prior.check(model.posterior)",
    ),
]

RUNGS = {
    "posteriors/rungs": [
        "test_every_draw_is_the_evidence_at_the_exact_posterior",
        "test_closed_rates_are_means_of_the_sampled_ones",
        "test_any_code_is_scored_and_decoded_as_its_draw_was",
    ],
    "priors/rungs": [
        "test_every_draw_is_the_evidence_at_the_exact_posterior",
        "test_a_temperature_for_each_rung_cools_that_rung",
        "test_kept_rungs_stay_and_the_others_are_drawn_given_them",
    ],
}
NOISED = {
    "diffusion": ["test_the_way_without_noise_is_known_for_a_normal"],
    "likelihoods/levels": ["test_levels_seen_through_noise"],
    "noise": [
        "test_the_bound_of_a_mixture_is_the_one_by_quadrature",
        "test_the_way_without_noise_is_known_for_a_normal",
        "test_all_steps_with_their_noise_have_the_moments_they_should",
        "test_the_simple_loss_is_the_formula",
    ],
    "posteriors/noised": ["test_the_bound_of_a_mixture_is_the_one_by_quadrature"],
    "priors/diffusion": ["test_the_bound_of_a_prior_is_that_of_codes_in_their_units"],
}

BEYOND = {
    "evaluate/annealed": [
        "test_annealing_leaves_the_bridge_as_it_is",
        "test_annealing_is_the_evidence_and_does_not_need_q",
    ],
    "evaluate/gap": ["test_refining_reaches_the_best_diagonal_posterior", "test_no_row_is_worse_for_being_refined"],
    "evaluate/integral": ["test_quadrature_is_the_evidence_whatever_q_is"],
    "evaluate/uncertainty": ["test_spread_of_a_linear_gaussian_model"],
    "tasks/walks": [
        "test_arithmetic_on_a_linear_model_is_exact",
        "test_a_path_along_the_density_of_one_unit_is_known",
    ],
    "training/alarms": ["test_a_code_in_use_has_not_collapsed_and_nothing_is_read"],
    "training/em": ["test_variational_em_reaches_probabilistic_pca"],
}

CODES = (
    "test_each_term_reads_all_that_stands_before_it_and_nothing_else",
    "test_probabilities_of_all_codes_sum_to_one",
    "test_draws_with_a_cache_are_those_without",
    "test_a_prior_of_another_codebook_is_refused_before_use",
    "test_training_on_begins_without_the_prior_and_fits_it_again",
)

# where a module's bugs show: files, or single tests
QUANTISED = tuple(
    f"quantised.py::test_{name}"
    for name in (
        "draws_of_the_prior_have_its_frequencies",
        "moving_averages_against_the_written_update",
        "penalties_are_per_example",
        "gradients_of_both_penalties",
        "the_rotation_takes_h_to_its_codeword",
        "residual_and_product_quantisers",
        "a_codeword_out_of_use_is_revived_by_the_batch",
        "finite_scalars_by_enumeration",
        "the_bound_is_below_the_evidence_by_enumeration",
    )
)
GENERAL = ("exact.py", "likelihoods.py", "divergences.py", "objectives.py")
TESTS = {
    **dict.fromkeys(("activations", "penalties", "networks"), ("sparse.py",)),
    **dict.fromkeys(("divergences/correlation", "recipes/disentangling"), ("correlation.py",)),
    **dict.fromkeys(("labels", "evaluate/classes"), ("labels.py",)),
    **dict.fromkeys(("flows", "priors/learned"), ("flows.py",)),
    "divergences/closed": ("flows.py::test_kl_between_any_normals_is_torchs_for_full_ones",),
    "draws": ("flows.py",),
    "posteriors": ("flows.py", *GENERAL),
    "gradients": ("gradients.py",),
    "training/adam": ("training.py::test_a_step_that_is_left_out_changes_nothing",),
    "training/average": ("training.py::test_the_average_is_its_formula",),
    "networks/cells": ("cells.py",),
    "priors/maps": ("cells.py::test_the_prior_is_the_product_of_its_rungs",),
    "posteriors/maps": (
        "cells.py::test_a_posterior_that_says_nothing_is_its_prior",
        "cells.py::test_a_code_is_scored_alike_on_the_way_and_afterwards",
    ),
    "networks/masked": tuple(f"codeprior.py::{name}" for name in CODES[:3]),
    "priors/codes": (f"codeprior.py::{CODES[2]}",),
    "priors/codewords": (*QUANTISED, f"codeprior.py::{CODES[3]}"),
    "training/loop": (f"codeprior.py::{CODES[4]}",),
    **dict.fromkeys(("posteriors/quantised", "posteriors/scalars"), QUANTISED),
    **{module: tuple(f"diffusion.py::{name}" for name in names) for module, names in NOISED.items()},
    **{module: tuple(f"beyond.py::{name}" for name in names) for module, names in BEYOND.items()},
    **{module: tuple(f"ladder.py::{name}" for name in names) for module, names in RUNGS.items()},
}


def judge(copy: str, log: str, files: list[str]) -> None:
    """In a process of its own: test files against the library in `copy`, output into `log`."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path.insert(0, copy)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # these three lines: nobody's settings, and quick
    plain = ["-c", os.devnull, "--rootdir", str(HERE.parent), "-p", "no:cacheprovider", "--assert=plain", "--tb=no"]
    code = pytest.main(["-x", "-q", *plain, *(str(HERE / name) for name in files)])
    import narrows

    if Path(narrows.__file__).parent.parent != Path(copy):
        code = 99
    sys.exit(int(code))


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str, str], tuple[int, str]]]:
    """Plants a bug and gives the exit code of its trial with what it printed."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)

    def trial(module: str, right: str, wrong: str) -> tuple[int, str]:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(LIBRARY, folder / "narrows", ignore=shutil.ignore_patterns("__pycache__"))
        place = folder / "narrows" / module  # a folder, or a file
        files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        times = {file: file.read_text().count(right) for file in files}
        assert sum(times.values()) == 1, f"the text to spoil occurs {sum(times.values())} times in {module}"
        file = max(times, key=times.__getitem__)
        file.write_text(file.read_text().replace(right, wrong))
        files = [f"test_{name}" for name in TESTS.get(module, GENERAL)]
        likely = f"test_{module}.py"
        files.sort(key=lambda name: name != likely)  # the likelier first
        process = context.Process(target=judge, args=(str(folder), str(folder / "log"), files))
        process.start()
        process.join(300)
        if process.is_alive():
            process.kill()
        return process.exitcode, (folder / "log").read_text()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # on tensors this small, threads only wait for each other
        yield trial


def test_an_untouched_copy_passes(verdict: Callable) -> None:
    """The trial itself finds no fault."""
    code, log = verdict("objectives", "import math\n", "import math\n")
    assert code == 0, log


@pytest.mark.parametrize(("module", "right", "wrong"), [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
def test_a_planted_bug_is_caught(
    module: str, right: str, wrong: str, verdict: Callable, record_property: Callable[[str, object], None]
) -> None:
    """By a failing test (exit code 1), not by code that does not run."""
    code, log = verdict(module, right, wrong)
    assert code == 1, log
    (caught,) = re.findall(r"(?m)^FAILED .*?(test_\w+\.py::.+?)(?: - |$)", log)
    record_property("caught by", caught)
    print(f"caught by {caught}")
