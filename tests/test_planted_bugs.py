"""Would the exact tests notice? The usual bugs of this field, planted one at a time in a copy of the library.

Each must be caught by the test that is named with it, which runs in a process of its own against the copy. An untouched
copy must pass, or a catch would mean nothing. The processes are forked from one that has imported torch already, which
saves that many start-ups.
"""

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent
LIBRARY = HERE.parent / "src" / "narrows"

# what these files import first or last, the library itself excepted
PRELOAD = [
    "pytest",
    "scipy.integrate",
    "scipy.stats",
    "torch.distributed.tensor",
    "torch.fx.experimental.symbolic_shapes",
    "torch.func",
]

# what is wrong, file, right text, wrong text, test that notices
BUGS = [
    (
        "codes from the encoder are not weighed for coming from it",
        "tasks/rows",
        "weights = (fits - mixed)",
        "weights = fits",
        "synthetic.py::test_rows_given_a_cell_by_quadrature",
    ),
    (
        "ties count as lost in the area under the curve",
        "evaluate/synthetic",
        "return (under + upto).double() / 2 / len(others)",
        "return under.double() / len(others)",
        "synthetic.py::test_an_area_is_that_of_scikit_learn_and_its_error_that_of_resampling",
    ),
    (
        "synthetic rows are told by cells that no table shows",
        "evaluate/synthetic",
        "return codec.encode(codec.decode(x))",
        "return x",
        "synthetic.py::test_copies_of_training_rows_are_found_out",
    ),
    (
        "mean over the units of the code",
        "contract",
        "self.rates.sum(-1)",
        "self.rates.mean(-1)",
        "exact.py::test_linear_vae_reaches_ppca_and_rests_there",
    ),
    (
        "mean over the values of x",
        "likelihoods",
        "return px.log_prob(x)\n",
        "return px.log_prob(x) / x[0].numel()\n",
        "likelihoods.py::test_shapes_and_types",
    ),
    (
        "mean over the seen values",
        "likelihoods",
        ".flatten(1).sum(1)",
        ".flatten(1).mean(1)",
        "likelihoods.py::test_what_is_not_seen_is_not_scored",
    ),
    ("sum over the draws", "objectives", "else t.mean(0)", "else t.sum(0)", "objectives.py::test_bounds_meet"),
    ("IWAE without log K", "objectives", " - math.log(len(log_w))", "", "objectives.py::test_bounds_meet"),
    (
        "Gaussian without its normaliser",
        "likelihoods",
        "Normal(mean, self.sigma.expand_as(mean), validate_args=False)",
        'type("Bare", (Normal,), {"log_prob": lambda self, x: -(((x - self.loc) / self.scale) ** 2) / 2})('
        "mean, self.sigma.expand_as(mean), validate_args=False)",
        "likelihoods.py::test_gaussian_density_integrates_to_one",
    ),
    (
        "logistic without its outer tails",
        "likelihoods",
        "torch.where(first | last, 0.0, inner)",
        "inner",
        "likelihoods.py::test_probabilities_of_all_levels_sum_to_one",
    ),
    (
        "beta on the distortion",
        "objectives",
        "_average(distortion + beta * rate)",
        "_average(beta * distortion + rate)",
        "objectives.py::test_bounds_meet",
    ),
    (
        "beta not used",
        "objectives",
        "_average(distortion + beta * rate)",
        "_average(distortion + rate)",
        "objectives.py::test_bounds_meet",
    ),
    (
        "free bits without beta",
        "objectives",
        "loss + beta * torch.relu",
        "loss + torch.relu",
        "objectives.py::test_free_bits_are_of_rungs",
    ),
    (
        "z detached",
        "posteriors/densities",
        "return Code(z, rates, None, None, nothing, q=q, p=p)",
        "return Code(z.detach(), rates, None, None, nothing, q=q, p=p)",
        "exact.py::test_linear_vae_reaches_ppca_and_rests_there",
    ),
    (
        "rate detached",
        "posteriors/densities",
        "rates = kl(q, p)",
        "rates = kl(q, p).detach()",
        "exact.py::test_linear_vae_reaches_ppca_and_rests_there",
    ),
    (
        "log q at a detached z",
        "contract",
        "q.log_prob(z).flatten()",
        "q.log_prob(z.detach()).flatten()",
        "exact.py::test_gradients_are_the_slopes_of_the_loss",
    ),
    (
        "KL the other way round",
        "divergences",
        "(q.base_dist, p.base_dist)",
        "(p.base_dist, q.base_dist)",
        "exact.py::test_linear_vae_reaches_ppca_and_rests_there",
    ),
    (
        "rows of another draw",
        "contract",
        "t.repeat(samples, *[1] * (t.dim() - 1))",
        "t.repeat_interleave(samples, 0)",
        "exact.py::test_exact_posterior_gives_the_evidence_in_every_single_draw",
    ),
    (
        "codes not cut off from the critic",
        "divergences",
        "fake = z.detach()",
        "fake = z",
        "divergences.py::test_neither_players_gradient_reaches_the_other",
    ),
    (
        "the encoder moves the critic",
        "divergences",
        "{name: weight.detach() for",
        "{name: weight for",
        "divergences.py::test_neither_players_gradient_reaches_the_other",
    ),
    (
        "the critic climbs down",
        "divergences",
        "told) - value\n",
        "told) + value\n",
        "divergences.py::test_the_best_critic_says_the_divergence",
    ),
    (
        "the critic's penalty forgotten",
        "divergences",
        "self.game.penalty * self._slope(fake, real, told) - value",
        "-value",
        "divergences.py::test_the_critic_pays_for_its_slope",
    ),
    (
        "a slope of 1 for every game",
        "divergences",
        ".sqrt() - self.game.slope)",
        ".sqrt() - 1)",
        "divergences.py::test_the_critic_pays_for_its_slope",
    ),
    (
        "codes and draws exchanged",
        "divergences",
        "self.game.fake(self.critic(fake, *told))",
        "self.game.fake(self.critic(real, *told))",
        "divergences.py::test_wasserstein_gives_the_length_of_a_shift",
    ),
    (
        "context of another draw",
        "divergences",
        "context.repeat(len(z) // len(context), 1)",
        "context.repeat_interleave(len(z) // len(context), 0)",
        "divergences.py::test_the_critic_is_told_the_context_of_every_draw",
    ),
    (
        "biased MMD",
        "divergences",
        "(k(a, a).sum() - len(a)) / max(len(a) * (len(a) - 1), 1)",
        "k(a, a).mean((0, 1))",
        "divergences.py::test_mmd_is_the_slow_double_loop",
    ),
    (
        "saturating where it should not",
        "divergences",
        "if self.saturating else",
        "if not self.saturating else",
        "divergences.py::test_the_encoders_gradient_is_that_of_the_divergence",
    ),
    (
        "slices not sorted",
        "divergences",
        ".sort(0).values for a",
        " for a",
        "divergences.py::test_a_shift_along_orthonormal_directions_is_exact",
    ),
    (
        "frames not orthonormal",
        "divergences",
        "torch.linalg.qr(frames).Q.flatten",
        "torch.nn.functional.normalize(frames, dim=2).flatten",
        "divergences.py::test_a_shift_along_orthonormal_directions_is_exact",
    ),
    (
        "Pearson without its linear term",
        "divergences",
        "v.square() / 4 + v",
        "v.square() / 4",
        "divergences.py::test_any_other_critic_says_less",
    ),
    (
        "discrepancy without its weight",
        "objectives",
        "self.discrepancy.weight * found_gap.model",
        "found_gap.model",
        "divergences.py::test_neither_players_gradient_reaches_the_other",
    ),
    (
        "counts without x!",
        "likelihoods",
        " - log_mean.exp() - torch.lgamma(x + 1)",
        " - log_mean.exp()",
        "likelihoods.py::test_probabilities_of_all_levels_sum_to_one",
    ),
    (
        "odds the other way round",
        "likelihoods",
        "log_theta.exp(), log_mean - log_theta",
        "log_theta.exp(), log_theta - log_mean",
        "likelihoods.py::test_mean_is_the_enumerated_mean",
    ),
    (
        "a library that is not shared out",
        "likelihoods",
        "said.flatten(1).log_softmax(1).view_as(said)",
        "said",
        "likelihoods.py::test_a_library_shares_out_the_total",
    ),
    (
        "components in one place",
        "likelihoods",
        "location + self.start",
        "location + 0.5",
        "likelihoods.py::test_a_mixture_of_logistics_is_a_sum_of_them",
    ),
    (
        "own row weighed as any other",
        "divergences/correlation",
        "masked_fill(own, -math.log(rows))",
        "masked_fill(own, other)",
        "correlation.py::test_stratified_densities_have_no_bias",
    ),
    (
        "others weighed by N B",
        "divergences/correlation",
        "(rows - 1) / (rows * (size - 1))",
        "1 / (rows * size)",
        "correlation.py::test_where_the_batch_is_the_whole_set_the_densities_are_exact",
    ),
    (
        "units without their weights",
        "divergences/correlation",
        "(each + log_weight[..., None])",
        "each",
        "correlation.py::test_where_the_batch_is_the_whole_set_the_densities_are_exact",
    ),
    (
        "columns shuffled together",
        "divergences/correlation",
        "noise.argsort(0)",
        "noise[:, :1].argsort(0).expand_as(z)",
        "correlation.py::test_columns_are_shuffled_each_on_its_own",
    ),
    (
        "shuffled codes with a gradient",
        "divergences/correlation",
        "z.detach().gather(",
        "z.gather(",
        "correlation.py::test_columns_are_shuffled_each_on_its_own",
    ),
    (
        "covariance of means for codes",
        "divergences/correlation",
        'if self.of == "codes":',
        'if self.of == "none":',
        "correlation.py::test_covariances_are_the_slow_loops",
    ),
    (
        "the diagonal paid twice",
        "divergences/correlation",
        "(self.diagonal - 1) * error",
        "self.diagonal * error",
        "correlation.py::test_covariances_are_the_slow_loops",
    ),
    (
        "InfoVAE's rate weighed by alpha",
        "recipes/disentangling",
        '{"beta": 1 - alpha}',
        '{"beta": alpha}',
        "correlation.py::test_infovae_weighs_rate_and_distance_by_alpha_and_lambda",
    ),
    (
        "TopK of absolute values",
        "activations",
        "h.topk(self.active, 1)",
        "h.abs().topk(self.active, 1)",
        "sparse.py::test_topk_keeps_exactly_k_and_its_gradient_flows_only_there",
    ),
    (
        "BatchTopK with k for the batch",
        "activations",
        "self.active * len(h)",
        "self.active",
        "sparse.py::test_batch_topk_keeps_k_times_b_of_the_batch",
    ),
    (
        "thresholds that ignore their size",
        "activations",
        "theta.detach() * near",
        "near",
        "sparse.py::test_jumprelu_has_the_derivatives_of_the_paper",
    ),
    (
        "AuxK of living units",
        "penalties",
        "h.masked_fill(~dead, -math.inf)",
        "h",
        "sparse.py::test_auxk_is_that_of_a_slow_reimplementation",
    ),
    (
        "AuxK teaches its own error",
        "penalties",
        "found.px.mean.detach()",
        "found.px.mean",
        "sparse.py::test_auxk_is_that_of_a_slow_reimplementation",
    ),
    (
        "target activity the other way round",
        "penalties",
        "(target, target / active)",
        "(active, active / target)",
        "sparse.py::test_target_activity_is_the_divergence_of_coins",
    ),
    (
        "MIWAE over the wrong axis",
        "objectives",
        "t.unflatten(0, (groups, -1)).transpose(0, 1)",
        "t.unflatten(0, (groups, -1))",
        "objectives.py::test_bounds_meet",
    ),
    ("Renyi without its power", "objectives", ".log1p() / power", ".log1p()", "objectives.py::test_bounds_meet"),
    (
        "STL keeps the score",
        "gradients",
        "log_q=log_q - (score - score.detach())",
        "log_q=log_q",
        "gradients.py::test_the_mean_gradient_is_that_of_the_integral",
    ),
    (
        "DReG with single weights",
        "gradients",
        "slope * share.reshape(-1, 1)",
        "slope",
        "gradients.py::test_the_mean_gradient_is_that_of_the_integral",
    ),
    (
        "rewards not cut off",
        "gradients",
        "else drawn.distortion).detach()",
        "else drawn.distortion)",
        "gradients.py::test_the_mean_gradient_is_that_of_the_integral",
    ),
    (
        "leave-one-out with itself",
        "gradients",
        "(f.sum(0) - f) / (len(f) - 1)",
        "f.sum(0) / len(f)",
        "gradients.py::test_the_mean_gradient_is_that_of_the_integral",
    ),
    (
        "VIMCO climbs down",
        "gradients",
        "(value.detach() - without)",
        "(without - value.detach())",
        "gradients.py::test_the_mean_gradient_is_that_of_the_integral",
    ),
    (
        "PIWAE's decoder from MIWAE",
        "gradients",
        "_only_slope(encoder + decoder)",
        "_only_slope(encoder)",
        "gradients.py::test_piwae_gives_each_side_its_own_bound",
    ),
    (
        "triangular system the wrong way round",
        "divergences/closed",
        "(theirs, torch.cat([ours, away]",
        "(ours, torch.cat([theirs, away]",
        "flows.py::test_kl_between_any_normals_is_torchs_for_full_ones",
    ),
    (
        "volumes exchanged",
        "divergences/closed",
        "volumes[0] - volumes[1]",
        "volumes[1] - volumes[0]",
        "flows.py::test_kl_between_any_normals_is_torchs_for_full_ones",
    ),
    (
        "a masked unit that reads itself",
        "flows",
        "last = torch.arange(latent)",
        "last = torch.arange(1, latent + 1)",
        "flows.py::test_the_logarithm_of_the_stretch_is_that_of_autograds_jacobian",
    ),
    (
        "steps that do not stretch",
        "flows",
        "log_det + stretch.sum(-1)",
        "log_det",
        "flows.py::test_the_logarithm_of_the_stretch_is_that_of_autograds_jacobian",
    ),
    (
        "planar steps that fold",
        "flows",
        "u = u + (allowed - along)",
        "u = u + 0 * (allowed - along)",
        "flows.py::test_the_logarithm_of_the_stretch_is_that_of_autograds_jacobian",
    ),
    (
        "the way back stretches as the way there",
        "flows",
        "return e, -transform",
        "return e, transform",
        "flows.py::test_there_and_back_is_the_identity",
    ),
    (
        "log q of the wrong sign of stretch",
        "posteriors",
        "base.log_prob(e) - log_det",
        "base.log_prob(e) + log_det",
        "flows.py::test_a_flow_posterior_integrates_to_one_and_scores_its_draws",
    ),
    (
        "a Cholesky factor without its corner",
        "posteriors",
        "scale[:, rows, columns] = below",
        "pass",
        "flows.py::test_the_exact_full_posterior_gives_the_evidence_in_every_draw",
    ),
    (
        "one Gumbel logarithm too few",
        "draws",
        "-(-u.log()).log()",
        "-(-u.log())",
        "flows.py::test_probabilities_of_choices_are_those_of_enumeration",
    ),
    (
        "soft draws in evaluation",
        "posteriors",
        "elif self.training and self.temp",
        "elif self.temp",
        "flows.py::test_probabilities_of_choices_are_those_of_enumeration",
    ),
    (
        "codes not brought to their width",
        "priors/learned",
        "return e, log_det - self.width.log().sum()",
        "return e, log_det",
        "flows.py::test_a_learned_density_integrates_to_one_and_draws_what_it_scores",
    ),
    (
        "a chain that leaves out its width",
        "priors/learned",
        ".sum(-1) - self.prior.width.log().sum()",
        ".sum(-1)",
        "flows.py::test_a_learned_density_integrates_to_one_and_draws_what_it_scores",
    ),
    (
        "pseudo-inputs of the first alone",
        "priors/learned",
        "self.given(self.hidden(self.inputs,",
        "self.given(self.hidden(0 * self.inputs,",
        "flows.py::test_a_vampprior_is_the_mixture_of_its_pseudo_inputs_posteriors",
    ),
    (
        "directions of any length",
        "networks",
        "normalize(self.weight, dim=1)",
        "self.weight",
        "sparse.py::test_a_dictionary_is_the_affine_map_it_says",
    ),
    (
        "a label's entropy forgotten",
        "labels",
        "weight * (log_weight - log_p)",
        "weight * -log_p",
        "labels.py::test_labelled_and_unlabelled_rows_have_their_bounds",
    ),
    (
        "classes not weighed",
        "labels",
        "-(weight.T * log_p.view(samples, q.classes, -1)).sum(1)",
        "-log_p.view(samples, q.classes, -1).mean(1)",
        "labels.py::test_labelled_and_unlabelled_rows_have_their_bounds",
    ),
    (
        "known labels not used",
        "labels",
        "known = (batch.label >= 0)",
        "known = (batch.label < -1)",
        "labels.py::test_labelled_and_unlabelled_rows_have_their_bounds",
    ),
    (
        "classes and draws exchanged",
        "labels",
        "log_p.view(samples, q.classes, -1)",
        "log_p.view(q.classes, samples, -1).transpose(0, 1)",
        "labels.py::test_labelled_and_unlabelled_rows_have_their_bounds",
    ),
    (
        "log q of another class",
        "labels",
        "(y * log_y).sum(-1) + q",
        "log_y.amax(-1) + q",
        "labels.py::test_where_only_the_label_matters_every_draw_gives_the_evidence",
    ),
    (
        "other draws for every class",
        "evaluate/classes",
        "draws.seeded(seed, 15, 0)",
        "draws.seeded(seed, 15, len(scores))",
        "labels.py::test_classes_that_make_no_difference_are_equally_likely",
    ),
    (
        "equal classes whatever the prior",
        "evaluate/classes",
        " + p.log()",
        "",
        "labels.py::test_classes_by_bayes_rule_are_exact_where_the_posterior_is",
    ),
    (
        "cells without their volume",
        "evaluate/integral",
        "torch.cat(value) + d * cells.side.log()",
        "torch.cat(value)",
        "beyond.py::test_quadrature_is_the_evidence_whatever_q_is",
    ),
    (
        "cubature without dz/du",
        "evaluate/integral",
        "return density + torch",
        "return 0 * density + torch",
        "beyond.py::test_quadrature_is_the_evidence_whatever_q_is",
    ),
    (
        "annealed weights of whole temperatures",
        "evaluate/annealed",
        "(b - before) * at",
        "b * at",
        "beyond.py::test_annealing_is_the_evidence_and_does_not_need_q",
    ),
    (
        "moves that are never refused",
        "evaluate/annealed",
        "< accepted\n",
        "< 1\n",
        "beyond.py::test_annealing_leaves_the_bridge_as_it_is",
    ),
    (
        "refining down",
        "evaluate/gap",
        "h.grad = -slope",
        "h.grad = slope",
        "beyond.py::test_refining_reaches_the_best_diagonal_posterior",
    ),
    (
        "the last state kept, not the best",
        "evaluate/gap",
        "better = gain.mean(0) > 2",
        "better = gain.mean(0) < 2",
        "beyond.py::test_refining_reaches_the_best_diagonal_posterior",
    ),
    (
        "a refined bound without its rate",
        "evaluate/gap",
        " - code.rate).unflatten",
        ").unflatten",
        "beyond.py::test_refining_reaches_the_best_diagonal_posterior",
    ),
    (
        "spread without the noise",
        "evaluate/uncertainty",
        "+= _variance(px).double()",
        "+= 0 * _variance(px).double()",
        "beyond.py::test_spread_of_a_linear_gaussian_model",
    ),
    (
        "metric without D",
        "tasks/walks",
        "2 / z.shape[1] * log_p",
        "3 / z.shape[1] * log_p",
        "beyond.py::test_a_path_along_the_density_of_one_unit_is_known",
    ),
    (
        "arithmetic the other way round",
        "tasks/walks",
        "(means[0] - means[1])",
        "(means[1] - means[0])",
        "beyond.py::test_arithmetic_on_a_linear_model_is_exact",
    ),
    (
        "E-steps on other rows",
        "training/em",
        "h[index], means[index]",
        "h[: len(index)], means[index]",
        "beyond.py::test_variational_em_reaches_probabilistic_pca",
    ),
    (
        "precisions multiplied",
        "posteriors/rungs",
        "total = ours + theirs",
        "total = ours * theirs",
        "ladder.py::test_every_draw_is_the_evidence_at_the_exact_posterior",
    ),
    (
        "the other's precision",
        "posteriors/rungs",
        "said * ours + mean * theirs",
        "said * theirs + mean * ours",
        "ladder.py::test_every_draw_is_the_evidence_at_the_exact_posterior",
    ),
    (
        "rungs merged upside down",
        "posteriors/rungs",
        "return found[::-1]\n",
        "return found\n",
        "ladder.py::test_every_draw_is_the_evidence_at_the_exact_posterior",
    ),
    (
        "a closed rate where there is none",
        "posteriors/rungs",
        "sampled[:, top:]",
        "_closed(found, slice(top, None))",
        "ladder.py::test_closed_rates_are_means_of_the_sampled_ones",
    ),
    (
        "noise in the place of codes",
        "posteriors/rungs",
        "z = own if known else",
        "z = own if not known else",
        "ladder.py::test_closed_rates_are_means_of_the_sampled_ones",
    ),
    (
        "codes side by side, bottom first",
        "posteriors/rungs",
        "torch.cat(parts[::-1], 1)",
        "torch.cat(parts, 1)",
        "ladder.py::test_every_draw_is_the_evidence_at_the_exact_posterior",
    ),
    (
        "a rung deaf to the one above",
        "priors/rungs",
        "[rung - 1](state, context)",
        "[rung - 1](0 * state, context)",
        "ladder.py::test_every_draw_is_the_evidence_at_the_exact_posterior",
    ),
    (
        "the wrong rungs kept",
        "priors/rungs",
        "if rung < keep else",
        "if rung >= keep else",
        "ladder.py::test_kept_rungs_stay_and_the_others_are_drawn_given_them",
    ),
    (
        "the top's temperature for all",
        "priors/rungs",
        "[t for t, units in zip",
        "[many[0] for t, units in zip",
        "ladder.py::test_a_temperature_for_each_rung_cools_that_rung",
    ),
    (
        "a density that does not narrow with its draws",
        "priors/rungs",
        "self.width * sigma).sum(-1)",
        "sigma).sum(-1)",
        "ladder.py::test_a_temperature_for_each_rung_cools_that_rung",
    ),
    (
        "free bits of units in a ladder",
        "objectives",
        "model.by_rung(rates) if isinstance",
        "rates if isinstance",
        "objectives.py::test_free_bits_are_of_rungs",
    ),
    (
        "a codeword farthest away",
        "posteriors/quantised",
        "v, vectors.T, alpha=-1)",
        "v, vectors.T, alpha=1)",
        "quantised.py::test_moving_averages_against_the_written_update",
    ),
    (
        "codewords without their length",
        "posteriors/quantised",
        "torch.addmm(vectors.square().sum(1) / 2, ",
        "torch.addmm(0 * vectors[:, 0], ",
        "quantised.py::test_moving_averages_against_the_written_update",
    ),
    (
        "averages of sums without counts",
        "posteriors/quantised",
        "self.sums[book] / count, self",
        "self.sums[book], self",
        "quantised.py::test_moving_averages_against_the_written_update",
    ),
    (
        "averages that move in evaluation",
        "posteriors/quantised",
        "learning = self.training and draw",
        "learning = draw",
        "quantised.py::test_moving_averages_against_the_written_update",
    ),
    (
        "commitment that moves the codebook alone",
        "posteriors/quantised",
        "own - e + slope[:, part]",
        "own - e",
        "quantised.py::test_gradients_of_both_penalties",
    ),
    (
        "penalties of the mean vector",
        "posteriors/quantised",
        "penalty.view(h.shape[0], -1).sum(1)",
        "penalty.view(h.shape[0], -1).mean(1)",
        "quantised.py::test_penalties_are_per_example",
    ),
    (
        "levels that all see the same",
        "posteriors/quantised",
        "left = left - e\n            found",
        "left = left - 0 * e\n            found",
        "quantised.py::test_residual_and_product_quantisers",
    ),
    (
        "codewords revived by one vector",
        "posteriors/quantised",
        "draws.some(self.codebook, v), ",
        "draws.some(self.codebook, v)[:1], ",
        "quantised.py::test_a_codeword_out_of_use_is_revived_by_the_batch",
    ),
    (
        "a rotation without its length",
        "posteriors/quantised",
        "_valued(e, scale * turned)",
        "_valued(e, turned)",
        "quantised.py::test_the_rotation_takes_h_to_its_codeword",
    ),
    (
        "levels off by a half",
        "posteriors/scalars",
        ".tanh() * half - offset",
        ".tanh() * half",
        "quantised.py::test_finite_scalars_by_enumeration",
    ),
    (
        "codewords of another place",
        "priors/codewords",
        "log_p[places, index",
        "log_p[places.flip(0), index",
        "quantised.py::test_draws_of_the_prior_have_its_frequencies",
    ),
    (
        "a step for the sum of all",
        "noise",
        "0.5 * self.steps * torch.expm1(now",
        "0.5 * torch.expm1(now",
        "diffusion.py::test_the_bound_of_a_mixture_is_the_one_by_quadrature",
    ),
    (
        "steps priced from the wrong end",
        "noise",
        "torch.expm1(now - before)",
        "-torch.expm1(before - now)",
        "diffusion.py::test_the_bound_of_a_mixture_is_the_one_by_quadrature",
    ),
    (
        "old noise kept whole",
        "noise",
        "(1 - c).sqrt() * noise + c.sqrt()",
        "noise + c.sqrt()",
        "diffusion.py::test_all_steps_with_their_noise_have_the_moments_they_should",
    ),
    (
        "no second look",
        "noise",
        "turn / 2 * (turned",
        "0 * turn * (turned",
        "diffusion.py::test_the_way_without_noise_is_known_for_a_normal",
    ),
    (
        "weights of single steps",
        "noise",
        "0.5 * self.steps * torch.expm1(gap)",
        "0.5 * torch.expm1(gap)",
        "diffusion.py::test_the_simple_loss_is_the_formula",
    ),
    (
        "the top forgotten",
        "posteriors/noised",
        "rates = found.rates + repeated",
        "rates = found.rates + 0 * repeated",
        "diffusion.py::test_the_simple_loss_is_the_formula",
    ),
    (
        "z_0 for x",
        "diffusion",
        "encoder.back(rise * first)",
        "encoder.back(first)",
        "diffusion.py::test_the_way_without_noise_is_known_for_a_normal",
    ),
    (
        "levels seen through sigma, not its square",
        "likelihoods/levels",
        "[x - 0.5, _said(sigma.square() * (",
        "[x - 0.5, _said(sigma * (",
        "diffusion.py::test_levels_seen_through_noise",
    ),
    (
        "a bound of codes without their width",
        "priors/diffusion",
        ".sum(1) - self.width.log().sum()",
        ".sum(1)",
        "diffusion.py::test_the_bound_of_a_prior_is_that_of_codes_in_their_units",
    ),
    (
        "a code in use called collapsed",
        "training/alarms",
        "return not units.by_variance.any() and",
        "return True or",
        "beyond.py::test_a_code_in_use_has_not_collapsed_and_nothing_is_read",
    ),
    (
        "average of the weights the wrong way round",
        "training/average",
        "1 - kept)",
        "kept)",
        "training.py::test_the_average_is_its_formula",
    ),
    (
        "average without its gentle start",
        "training/average",
        "min(self.share, (1 + step) / (10 + step))",
        "self.share",
        "training.py::test_the_average_is_its_formula",
    ),
    (
        "a step that is left out is counted",
        "training/adam",
        "1 if left_out is None else 1 - left_out",
        "1",
        "training.py::test_a_step_that_is_left_out_changes_nothing",
    ),
    (
        "the average goes on from the average",
        "training/average",
        "self._set(raw)",
        "pass",
        "training.py::test_the_average_is_its_formula",
    ),
    (
        "a cell forgets its input",
        "networks/cells",
        "return x + y if self.residual else y",
        "return y",
        "cells.py::test_a_cell_of_scale_nought_changes_nothing",
    ),
    (
        "cells begin at full strength",
        "networks/cells",
        "layers[-1].weight.mul_(scale)",
        "layers[-1].weight.mul_(1)",
        "cells.py::test_a_cell_of_scale_nought_changes_nothing",
    ),
    (
        "odd halves rounded down",
        "networks/cells",
        "-(-size[0] // 2**times)",
        "max(size[0] // 2**times, 1)",
        "cells.py::test_rungs_are_shared_out_among_the_halves_of_an_image",
    ),
    (
        "the name of a bend looked up among sparse activations",
        "spec",
        "k: v if k in words else restore(k, v)",
        "k: restore(k, v)",
        "networks.py::test_what_a_part_takes_as_a_word_is_no_part",
    ),
    (
        "convolution of patches that steps over pixels",
        "networks/cells",
        "self.times + 1 if self.times > 1",
        "3 if self.times > 1",
        "cells.py::test_the_largest_rungs_have_a_place_for_every_patch_and_step_over_no_pixel",
    ),
    (
        "prior of maps without its way past z",
        "priors/maps",
        "6, state + more",
        "6, state",
        "cells.py::test_the_prior_is_the_product_of_its_rungs",
    ),
    (
        "what a rung says is not taken in",
        "priors/maps",
        "self.after[rung](state + taken)",
        "self.after[rung](state)",
        "cells.py::test_the_prior_is_the_product_of_its_rungs",
    ),
    (
        "the state is not enlarged after the top",
        "priors/maps",
        "state = larger(state, self.sizes[rung])",
        "state = state.new_zeros(len(state), self.width, *self.sizes[rung])",
        "cells.py::test_the_prior_is_the_product_of_its_rungs",
    ),
    (
        "q moved by x alone, not in the prior's units",
        "posteriors/maps",
        "mean + sigma * move",
        "mean + move",
        "cells.py::test_a_code_is_scored_alike_on_the_way_and_afterwards",
    ),
    (
        "q scaled by x alone",
        "posteriors/maps",
        "sigma * (softplus(s + ONE) + 1e-6)",
        "softplus(s + ONE) + 1e-6",
        "cells.py::test_a_posterior_that_says_nothing_is_its_prior",
    ),
    (
        "a codeword that reads itself",
        "networks/masked",
        "self.span = reach, first, reach + (not first)",
        "self.span = reach, first, reach + 1",
        "codeprior.py::test_each_term_reads_all_that_stands_before_it_and_nothing_else",
    ),
    (
        "a blind spot",
        "networks/masked",
        "self.left(window) + self.across(above)",
        "self.left(window)",
        "codeprior.py::test_each_term_reads_all_that_stands_before_it_and_nothing_else",
    ),
    (
        "a level that reads itself",
        "networks/masked",
        "pad(self.level(index[..., :-1]).cumsum(-2), (0, 0, 1, 0))",
        "self.level(index).cumsum(-2)",
        "codeprior.py::test_each_term_reads_all_that_stands_before_it_and_nothing_else",
    ),
    (
        "attention to what is to come",
        "networks/masked",
        "is_causal=cache is None",
        "is_causal=False",
        "codeprior.py::test_each_term_reads_all_that_stands_before_it_and_nothing_else",
    ),
    (
        "attention to an empty cache",
        "networks/masked",
        "k, v = cache[:, :, :, : place + 1]",
        "k, v = cache",
        "codeprior.py::test_draws_with_a_cache_are_those_without",
    ),
    (
        "gates that are told nothing",
        "networks/masked",
        "x if told is None else x + told",
        "x",
        "codeprior.py::test_probabilities_of_all_codes_sum_to_one",
    ),
    (
        "one uniform for all codewords",
        "priors/codes",
        "u[start : start + ROWS, slot, None]",
        "u[start : start + ROWS, :1]",
        "codeprior.py::test_draws_with_a_cache_are_those_without",
    ),
    (
        "another codebook not noticed",
        "priors/codewords",
        "if self.known.any() and not",
        "if self.known.isnan().any() and not",
        "codeprior.py::test_a_prior_of_another_codebook_is_refused_before_use",
    ),
    (
        "the prior of a codebook that has moved",
        "training/loop",
        "model.prior.begin()",
        "model.prior.check(model.posterior)",
        "codeprior.py::test_training_on_begins_without_the_prior_and_fits_it_again",
    ),
    (
        "a decoder that begins at the mean itself, not at its log-odds",
        "likelihoods",
        ".clamp(1e-3, 1 - 1e-3).logit()",
        ".clamp(1e-3, 1 - 1e-3)",
        "likelihoods.py::test_the_usual_is_the_best_that_can_be_said_without_a_code",
    ),
    (
        "a trained decoder that begins anew",
        "models",
        "if bias is None or bias.any():",
        "if bias is None:",
        "training.py::test_an_untrained_decoder_begins_at_the_usual_row_and_a_trained_one_where_it_was",
    ),
    (
        "fine codewords that are told nothing of the coarse ones",
        "priors/codewords",
        "told += [part.to(self.known) for part in above]",
        "told += [torch.zeros_like(part).to(self.known) for part in above]",
        "codeword_rungs.py::test_a_fit_finds_what_the_coarse_says_of_the_fine",
    ),
    (
        "fine vectors that are chosen given what the coarse codewords stood for",
        "posteriors/quantised_rungs",
        "state = self._joined(rung, z, state)\n        z, index",
        "state = self._joined(rung, q.joined(q.apart(v), h.shape[0]), state)\n        z, index",
        "codeword_rungs.py::test_the_bound_is_below_the_evidence_by_enumeration",
    ),
    (
        "a prior of rungs that prices the top alone",
        "priors/codewords",
        "found.append(px.each(part.unflatten(1, grid)).flatten(1))",
        "found.append(px.each(part.unflatten(1, grid)).flatten(1) * (rung == 0))",
        "codeword_rungs.py::test_probabilities_of_all_codes_sum_to_one",
    ),
    (
        "features of a place that are those of another row of the grid",
        "networks",
        "told[..., row : row + 1, columns]",
        "told[..., :1, columns]",
        "codeword_rungs.py::test_draws_are_as_frequent_as_probable",
    ),
    (
        "missing cells that are scored",
        "data/rows",
        "seen = ~target.isnan()",
        "seen = torch.ones_like(target, dtype=torch.bool)",
        "images_tables.py::test_missing_cells_are_counted",
    ),
    (
        "labels of test rows that the codec knows",
        "data/load",
        "TableCodec.fit(found.table.filter(train), kinds)",
        "TableCodec.fit(found.table, kinds)",
        "images_tables.py::test_what_the_test_rows_alone_hold_is_unknown",
    ),
    (
        "the usual category by its number instead of its share",
        "likelihoods/columns",
        "said[place] = shares((cell",
        "said[place] = cell.nanmean() * shares((cell",
        "columns.py::test_the_usual_row_is_the_best_that_can_be_said_without_a_code",
    ),
    (
        "empty cells filled by draws of which all weigh the same",
        "tasks",
        "w = (-distortion - rate).double()",
        "w = (0 * distortion).double()",
        "columns.py::test_empty_cells_by_quadrature",
    ),
    (
        "a filled table whose other cells are the model's too",
        "data/codec",
        "pa.compute.if_else(lost, _plain(made.column(column.name)).cast(kind), own.cast(kind))",
        "_plain(made.column(column.name)).cast(kind)",
        "columns.py::test_a_table_is_filled_where_it_is_empty_and_nowhere_else",
    ),
    (
        "draws that are spread wider are not weighed for it",
        "evaluate/likelihood",
        "log_w if wider is None else log_w + wider.correction()",
        "log_w",
        "evaluate.py::test_a_posterior_too_narrow_hides_no_likelihood",
    ),
    (
        "a cell that speaks for itself when it is blamed",
        "tasks/cells",
        "rest = joint - score ",
        "rest = joint - 0 * score ",
        "blame.py::test_a_cell_of_plain_numbers_by_quadrature",
    ),
    (
        "a row that is blamed by draws of its own",
        "tasks/cells",
        "draws.seeded(seed, 37, 0), draws.common()",
        "draws.seeded(seed, 37, 0)",
        "blame.py::test_a_row_is_blamed_alike_whatever_stands_beside_it",
    ),
    (
        "a table whose sound cells are replaced too",
        "tasks/cells",
        "odd = (worst > threshold)",
        "odd = (worst > -threshold)",
        "columns.py::test_cells_that_the_others_speak_against_are_replaced",
    ),
    (
        "a row that is not counted in its own p-value",
        "tasks/anomaly",
        "found = (1 + len(held) - torch.searchsorted",
        "found = (len(held) - torch.searchsorted",
        "anomaly.py::test_p_values_are_uniform_over_held_out_rows",
    ),
    (
        "a trimmed loss that keeps the worst rows",
        "objectives",
        "int(self.trim * len(each)), largest=False)",
        "int(self.trim * len(each)), largest=True)",
        "anomaly.py::test_trimmed_losses_leave_the_worst_rows_out",
    ),
    (
        "a detector that is another once it was stored",
        "cli/detect",
        "in sorted(detector.state.items())",
        "in detector.state.items()",
        "anomaly.py::test_a_folder_is_scored_file_by_file_and_goes_on_where_it_stopped",
    ),
    (
        "a row that is its own nearest neighbour",
        "tasks/anomaly",
        "torch.where(own, least[-1],",
        "torch.where(own & False, least[-1],",
        "anomaly.py::test_no_row_is_its_own_neighbour",
    ),
    (
        "a window that lies in two parts of a series",
        "data/load",
        "part = np.where(inside, part[: len(inside)], LEFT)",
        "part = np.where(inside | True, part[: len(inside)], LEFT)",
        "series.py::test_no_window_lies_in_two_parts_or_groups",
    ),
    (
        "a step that is scored by the window that begins there alone",
        "data/windows",
        "for lag in range(length):",
        "for lag in range(1):",
        "series.py::test_a_step_is_the_mean_of_the_windows_that_hold_it",
    ),
    (
        "the next channel in the place of the next step",
        "data/windows",
        "return view[:: x.shape[1]]",
        "return view[: len(x) - length + 1]",
        "series.py::test_windows_are_a_view_and_steps_bring_them_back",
    ),
    (
        "a stretch that is never found",
        "tasks/anomaly",
        'stretch[inside], scores[inside], "amax")',
        'stretch[inside], scores[inside], "amin", include_self=False)',
        "series.py::test_point_adjustment_by_hand",
    ),
    (
        "a cell far out whose rank is its score",
        "tasks/anomaly",
        "y[-1] + slope * (value - x[-1])",
        "y[-1] + 0 * (value - x[-1])",
        "anomaly.py::test_ranks_become_normal_scores_and_go_straight_on_beyond",
    ),
]


def judge(copy: str, log: str, test: str) -> None:
    """In a process of its own: a test against the library in `copy`, output into `log`."""
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.path.insert(0, copy)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # these three lines: nobody's settings, and quick
    plain = ["-c", os.devnull, "--rootdir", str(HERE.parent), "-p", "no:cacheprovider", "--assert=plain", "--tb=no"]
    code = pytest.main(["-x", "-q", *plain, str(HERE / f"test_{test}")])
    import narrows

    if Path(narrows.__file__).parent.parent != Path(copy):
        code = 99
    sys.exit(int(code))


@pytest.fixture(scope="module")
def verdict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, str, str, str], tuple[int, str]]]:
    """Plants a bug and gives the exit code of its trial with what it printed."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)

    def trial(module: str, right: str, wrong: str, test: str) -> tuple[int, str]:
        folder = tmp_path_factory.mktemp("copy")
        shutil.copytree(LIBRARY, folder / "narrows", ignore=shutil.ignore_patterns("__pycache__"))
        place = folder / "narrows" / module  # a folder, or a file
        files = sorted(place.glob("*.py")) if place.is_dir() else [place.with_suffix(".py")]
        times = {file: file.read_text().count(right) for file in files}
        assert sum(times.values()) == 1, f"the text to spoil occurs {sum(times.values())} times in {module}"
        file = max(times, key=times.__getitem__)
        file.write_text(file.read_text().replace(right, wrong))
        process = context.Process(target=judge, args=(str(folder), str(folder / "log"), test))
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
    code, log = verdict("objectives", "import math\n", "import math\n", "exact.py")
    assert code == 0, log


@pytest.mark.parametrize("bug", [bug[1:] for bug in BUGS], ids=[bug[0] for bug in BUGS])
def test_a_planted_bug_is_caught(bug: tuple[str, str, str, str], verdict: Callable) -> None:
    """By a failing test (exit code 1), not by code that does not run."""
    code, log = verdict(*bug)
    assert code == 1, log
    assert "FAILED" in log, log
