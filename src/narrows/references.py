"""Who thought of it: BibTeX for exactly the parts that a model is made of."""

from collections.abc import Iterator
from typing import Any

__all__ = ["cite"]

_WORKS = {
    "autoencoder": """@article{hinton2006reducing,
  title={Reducing the dimensionality of data with neural networks},
  author={Hinton, Geoffrey E. and Salakhutdinov, Ruslan R.},
  journal={Science}, volume={313}, number={5786}, pages={504--507}, year={2006}, doi={10.1126/science.1127647}
}""",
    "stacked": """@inproceedings{bengio2007greedy,
  title={Greedy Layer-Wise Training of Deep Networks},
  author={Bengio, Yoshua and Lamblin, Pascal and Popovici, Dan and Larochelle, Hugo},
  booktitle={Advances in Neural Information Processing Systems}, volume={19}, pages={153--160}, year={2007}
}""",
    "corruption": """@article{vincent2010stacked,
  title={Stacked Denoising Autoencoders: Learning Useful Representations in a Deep Network with a Local Denoising
    Criterion},
  author={Vincent, Pascal and Larochelle, Hugo and Lajoie, Isabelle and Bengio, Yoshua and Manzagol, Pierre-Antoine},
  journal={Journal of Machine Learning Research}, volume={11}, pages={3371--3408}, year={2010}
}""",
    "linear": """@article{baldi1989neural,
  title={Neural networks and principal component analysis: Learning from examples without local minima},
  author={Baldi, Pierre and Hornik, Kurt},
  journal={Neural Networks}, volume={2}, number={1}, pages={53--58}, year={1989}, doi={10.1016/0893-6080(89)90014-2}
}""",
    "randomised": """@article{halko2011finding,
  title={Finding Structure with Randomness: Probabilistic Algorithms for Constructing Approximate Matrix
    Decompositions},
  author={Halko, Nathan and Martinsson, Per-Gunnar and Tropp, Joel A.},
  journal={SIAM Review}, volume={53}, number={2}, pages={217--288}, year={2011}, doi={10.1137/090771806}
}""",
    "vae": """@inproceedings{kingma2014auto,
  title={Auto-Encoding Variational {Bayes}},
  author={Kingma, Diederik P. and Welling, Max},
  booktitle={International Conference on Learning Representations}, year={2014}, eprint={1312.6114}
}""",
    "beta_vae": """@inproceedings{higgins2017beta,
  title={beta-{VAE}: Learning Basic Visual Concepts with a Constrained Variational Framework},
  author={Higgins, Irina and Matthey, Loic and Pal, Arka and Burgess, Christopher and Glorot, Xavier and Botvinick,
    Matthew and Mohamed, Shakir and Lerchner, Alexander},
  booktitle={International Conference on Learning Representations}, year={2017}
}""",
    "iwae": """@inproceedings{burda2016importance,
  title={Importance Weighted Autoencoders},
  author={Burda, Yuri and Grosse, Roger and Salakhutdinov, Ruslan},
  booktitle={International Conference on Learning Representations}, year={2016}, eprint={1509.00519}
}""",
    "tighter": """@inproceedings{rainforth2018tighter,
  title={Tighter Variational Bounds are Not Necessarily Better},
  author={Rainforth, Tom and Kosiorek, Adam R. and Le, Tuan Anh and Maddison, Chris J. and Igl, Maximilian and Wood,
    Frank and Teh, Yee Whye},
  booktitle={International Conference on Machine Learning}, year={2018}, eprint={1802.04537}
}""",
    "renyi": r"""@inproceedings{li2016renyi,
  title={R{\'e}nyi Divergence Variational Inference},
  author={Li, Yingzhen and Turner, Richard E.},
  booktitle={Advances in Neural Information Processing Systems}, year={2016}, eprint={1602.02311}
}""",
    "StickingTheLanding": """@inproceedings{roeder2017sticking,
  title={Sticking the Landing: Simple, Lower-Variance Gradient Estimators for Variational Inference},
  author={Roeder, Geoffrey and Wu, Yuhuai and Duvenaud, David},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}, eprint={1703.09194}
}""",
    "DoublyReparameterised": """@inproceedings{tucker2019doubly,
  title={Doubly Reparameterized Gradient Estimators for {Monte Carlo} Objectives},
  author={Tucker, George and Lawson, Dieterich and Gu, Shixiang and Maddison, Chris J.},
  booktitle={International Conference on Learning Representations}, year={2019}, eprint={1810.04152}
}""",
    "ScoreFunction": """@article{williams1992simple,
  title={Simple statistical gradient-following algorithms for connectionist reinforcement learning},
  author={Williams, Ronald J.},
  journal={Machine Learning}, volume={8}, pages={229--256}, year={1992}, doi={10.1007/BF00992696}
}""",
    "Vimco": """@inproceedings{mnih2016variational,
  title={Variational Inference for {Monte Carlo} Objectives},
  author={Mnih, Andriy and Rezende, Danilo J.},
  booktitle={International Conference on Machine Learning}, year={2016}, eprint={1602.06725}
}""",
    "dropout": """@article{srivastava2014dropout,
  title={Dropout: A Simple Way to Prevent Neural Networks from Overfitting},
  author={Srivastava, Nitish and Hinton, Geoffrey and Krizhevsky, Alex and Sutskever, Ilya and Salakhutdinov, Ruslan},
  journal={Journal of Machine Learning Research}, volume={15}, pages={1929--1958}, year={2014}
}""",
    "contractive": """@inproceedings{rifai2011contractive,
  title={Contractive Auto-Encoders: Explicit Invariance During Feature Extraction},
  author={Rifai, Salah and Vincent, Pascal and Muller, Xavier and Glorot, Xavier and Bengio, Yoshua},
  booktitle={International Conference on Machine Learning}, year={2011}
}""",
    "regularised": r"""@inproceedings{ghosh2020variational,
  title={From Variational to Deterministic Autoencoders},
  author={Ghosh, Partha and Sajjadi, Mehdi S. M. and Vergari, Antonio and Black, Michael and Sch{\"o}lkopf, Bernhard},
  booktitle={International Conference on Learning Representations}, year={2020}, eprint={1903.12436}
}""",
    "aae": """@article{makhzani2015adversarial,
  title={Adversarial Autoencoders},
  author={Makhzani, Alireza and Shlens, Jonathon and Jaitly, Navdeep and Goodfellow, Ian and Frey, Brendan},
  journal={arXiv preprint arXiv:1511.05644}, year={2015}
}""",
    "JensenShannon": """@inproceedings{goodfellow2014generative,
  title={Generative Adversarial Nets},
  author={Goodfellow, Ian and Pouget-Abadie, Jean and Mirza, Mehdi and Xu, Bing and Warde-Farley, David and Ozair,
    Sherjil and Courville, Aaron and Bengio, Yoshua},
  booktitle={Advances in Neural Information Processing Systems}, year={2014}, eprint={1406.2661}
}""",
    "Wasserstein": """@inproceedings{gulrajani2017improved,
  title={Improved Training of {Wasserstein} {GANs}},
  author={Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and Courville, Aaron},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}, eprint={1704.00028}
}""",
    "f-gan": """@inproceedings{nowozin2016fgan,
  title={{f-GAN}: Training Generative Neural Samplers using Variational Divergence Minimization},
  author={Nowozin, Sebastian and Cseke, Botond and Tomioka, Ryota},
  booktitle={Advances in Neural Information Processing Systems}, year={2016}, eprint={1606.00709}
}""",
    "conditional": """@inproceedings{sohn2015learning,
  title={Learning Structured Output Representation using Deep Conditional Generative Models},
  author={Sohn, Kihyuk and Lee, Honglak and Yan, Xinchen},
  booktitle={Advances in Neural Information Processing Systems}, volume={28}, pages={3483--3491}, year={2015}
}""",
    "semi_supervised": """@inproceedings{kingma2014semi,
  title={Semi-supervised Learning with Deep Generative Models},
  author={Kingma, Diederik P. and Mohamed, Shakir and Rezende, Danilo Jimenez and Welling, Max},
  booktitle={Advances in Neural Information Processing Systems}, volume={27}, pages={3581--3589}, year={2014},
  eprint={1406.5298}
}""",
    "wae_mmd": r"""@inproceedings{tolstikhin2018wasserstein,
  title={{Wasserstein} Auto-Encoders},
  author={Tolstikhin, Ilya and Bousquet, Olivier and Gelly, Sylvain and Sch{\"o}lkopf, Bernhard},
  booktitle={International Conference on Learning Representations}, year={2018}, eprint={1711.01558}
}""",
    "MMD": r"""@article{gretton2012kernel,
  title={A Kernel Two-Sample Test},
  author={Gretton, Arthur and Borgwardt, Karsten M. and Rasch, Malte J. and Sch{\"o}lkopf, Bernhard and Smola,
    Alexander},
  journal={Journal of Machine Learning Research}, volume={13}, pages={723--773}, year={2012}
}""",
    "swae": """@article{kolouri2018sliced,
  title={Sliced-{Wasserstein} Autoencoder: An Embarrassingly Simple Generative Model},
  author={Kolouri, Soheil and Pope, Phillip E. and Martin, Charles E. and Rohde, Gustavo K.},
  journal={arXiv preprint arXiv:1804.01947}, year={2018}
}""",
    "DiscretisedLogistic": """@inproceedings{salimans2017pixelcnn,
  title={{PixelCNN++}: Improving the {PixelCNN} with Discretized Logistic Mixture Likelihood and Other Modifications},
  author={Salimans, Tim and Karpathy, Andrej and Chen, Xi and Kingma, Diederik P.},
  booktitle={International Conference on Learning Representations}, year={2017}, eprint={1701.05517}
}""",
    "NegativeBinomial": """@article{lopez2018deep,
  title={Deep generative modeling for single-cell transcriptomics},
  author={Lopez, Romain and Regier, Jeffrey and Cole, Michael B. and Jordan, Michael I. and Yosef, Nir},
  journal={Nature Methods}, volume={15}, pages={1053--1058}, year={2018}, doi={10.1038/s41592-018-0229-2}
}""",
    "learn": """@inproceedings{rybkin2021simple,
  title={Simple and Effective {VAE} Training with Calibrated Decoders},
  author={Rybkin, Oleh and Daniilidis, Kostas and Levine, Sergey},
  booktitle={International Conference on Machine Learning}, year={2021}, eprint={2006.13202}
}""",
    "WarmUp": """@inproceedings{bowman2016generating,
  title={Generating Sentences from a Continuous Space},
  author={Bowman, Samuel R. and Vilnis, Luke and Vinyals, Oriol and Dai, Andrew M. and Jozefowicz, Rafal and Bengio,
    Samy},
  booktitle={Conference on Computational Natural Language Learning}, year={2016}, eprint={1511.06349}
}""",
    "Cyclical": """@inproceedings{fu2019cyclical,
  title={Cyclical Annealing Schedule: A Simple Approach to Mitigating {KL} Vanishing},
  author={Fu, Hao and Li, Chunyuan and Liu, Xiaodong and Gao, Jianfeng and Celikyilmaz, Asli and Carin, Lawrence},
  booktitle={Conference of the North American Chapter of the ACL}, year={2019}, eprint={1903.10145}
}""",
    "free_bits": """@inproceedings{kingma2016improved,
  title={Improved Variational Inference with Inverse Autoregressive Flow},
  author={Kingma, Diederik P. and Salimans, Tim and Jozefowicz, Rafal and Chen, Xi and Sutskever, Ilya and Welling,
    Max},
  booktitle={Advances in Neural Information Processing Systems}, year={2016}, eprint={1606.04934}
}""",
    "capacity": """@article{burgess2018understanding,
  title={Understanding disentangling in beta-{VAE}},
  author={Burgess, Christopher P. and Higgins, Irina and Pal, Arka and Matthey, Loic and Watters, Nick and Desjardins,
    Guillaume and Lerchner, Alexander},
  journal={arXiv preprint arXiv:1804.03599}, year={2018}
}""",
    "infovae": """@article{zhao2017infovae,
  title={{InfoVAE}: Information Maximizing Variational Autoencoders},
  author={Zhao, Shengjia and Song, Jiaming and Ermon, Stefano},
  journal={arXiv preprint arXiv:1706.02262}, year={2017}
}""",
    "beta_tc_vae": """@inproceedings{chen2018isolating,
  title={Isolating Sources of Disentanglement in Variational Autoencoders},
  author={Chen, Ricky T. Q. and Li, Xuechen and Grosse, Roger and Duvenaud, David},
  booktitle={Advances in Neural Information Processing Systems}, year={2018}, eprint={1802.04942}
}""",
    "factor_vae": """@inproceedings{kim2018disentangling,
  title={Disentangling by Factorising},
  author={Kim, Hyunjik and Mnih, Andriy},
  booktitle={International Conference on Machine Learning}, year={2018}, eprint={1802.05983}
}""",
    "dip_vae": """@inproceedings{kumar2018variational,
  title={Variational Inference of Disentangled Latent Concepts from Unlabeled Observations},
  author={Kumar, Abhishek and Sattigeri, Prasanna and Balakrishnan, Avinash},
  booktitle={International Conference on Learning Representations}, year={2018}, eprint={1711.00848}
}""",
    "sparse": r"""@inproceedings{gao2025scaling,
  title={Scaling and evaluating sparse autoencoders},
  author={Gao, Leo and Dupr{\'e} la Tour, Tom and Tillman, Henk and Goh, Gabriel and Troll, Rajan and Radford, Alec and
    Sutskever, Ilya and Leike, Jan and Wu, Jeffrey},
  booktitle={International Conference on Learning Representations}, year={2025}, eprint={2406.04093}
}""",
    "BatchTopK": """@article{bussmann2024batchtopk,
  title={{BatchTopK} Sparse Autoencoders},
  author={Bussmann, Bart and Leask, Patrick and Nanda, Neel},
  journal={arXiv preprint arXiv:2412.06410}, year={2024}
}""",
    "JumpReLU": r"""@article{rajamanoharan2024jumping,
  title={Jumping Ahead: Improving Reconstruction Fidelity with {JumpReLU} Sparse Autoencoders},
  author={Rajamanoharan, Senthooran and Lieberum, Tom and Sonnerat, Nicolas and Conmy, Arthur and Varma, Vikrant and
    Kram{\'a}r, J{\'a}nos and Nanda, Neel},
  journal={arXiv preprint arXiv:2407.14435}, year={2024}
}""",
    "L1": """@article{olshausen1996emergence,
  title={Emergence of simple-cell receptive field properties by learning a sparse code for natural images},
  author={Olshausen, Bruno A. and Field, David J.},
  journal={Nature}, volume={381}, number={6583}, pages={607--609}, year={1996}, doi={10.1038/381607a0}
}""",
    "TargetActivity": """@misc{ng2011sparse,
  title={Sparse autoencoder},
  author={Ng, Andrew},
  howpublished={CS294A lecture notes, Stanford University}, year={2011}
}""",
    "resampling": """@article{bricken2023monosemanticity,
  title={Towards Monosemanticity: Decomposing Language Models With Dictionary Learning},
  author={Bricken, Trenton and Templeton, Adly and Batson, Joshua and Chen, Brian and Jermyn, Adam and others},
  journal={Transformer Circuits Thread}, year={2023}
}""",
    "Flow": """@inproceedings{rezende2015variational,
  title={Variational Inference with Normalizing Flows},
  author={Rezende, Danilo Jimenez and Mohamed, Shakir},
  booktitle={International Conference on Machine Learning}, year={2015}, eprint={1505.05770}
}""",
    "MAF": """@inproceedings{papamakarios2017masked,
  title={Masked Autoregressive Flow for Density Estimation},
  author={Papamakarios, George and Pavlakou, Theo and Murray, Iain},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}, eprint={1705.07057}
}""",
    "NSF": """@inproceedings{durkan2019neural,
  title={Neural Spline Flows},
  author={Durkan, Conor and Bekasov, Artur and Murray, Iain and Papamakarios, George},
  booktitle={Advances in Neural Information Processing Systems}, year={2019}, eprint={1906.04032}
}""",
    "zuko": r"""@software{rozet2022zuko,
  title={Zuko: Normalizing flows in {PyTorch}},
  author={Rozet, Fran{\c c}ois and others},
  year={2022}, doi={10.5281/zenodo.7625672}, license={MIT}, url={https://pypi.org/project/zuko}
}""",
    "Autoregressive": """@inproceedings{germain2015made,
  title={{MADE}: Masked Autoencoder for Distribution Estimation},
  author={Germain, Mathieu and Gregor, Karol and Murray, Iain and Larochelle, Hugo},
  booktitle={International Conference on Machine Learning}, year={2015}, eprint={1502.03509}
}""",
    "vampprior": """@inproceedings{tomczak2018vae,
  title={{VAE} with a {VampPrior}},
  author={Tomczak, Jakub M. and Welling, Max},
  booktitle={International Conference on Artificial Intelligence and Statistics}, year={2018}, eprint={1705.07120}
}""",
    "hvae": """@inproceedings{rezende2014stochastic,
  title={Stochastic Backpropagation and Approximate Inference in Deep Generative Models},
  author={Rezende, Danilo Jimenez and Mohamed, Shakir and Wierstra, Daan},
  booktitle={International Conference on Machine Learning}, year={2014}, eprint={1401.4082}
}""",
    "ladder": """@inproceedings{sonderby2016ladder,
  title={Ladder Variational Autoencoders},
  author={S{\\o}nderby, Casper Kaae and Raiko, Tapani and Maal{\\o}e, Lars and S{\\o}nderby, S{\\o}ren Kaae and Winther,
    Ole},
  booktitle={Advances in Neural Information Processing Systems}, year={2016}, eprint={1602.02282}
}""",
    "norm": """@inproceedings{ioffe2015batch,
  title={Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift},
  author={Ioffe, Sergey and Szegedy, Christian},
  booktitle={International Conference on Machine Learning}, year={2015}, eprint={1502.03167}
}""",
    "concrete": """@inproceedings{maddison2017concrete,
  title={The {Concrete} Distribution: A Continuous Relaxation of Discrete Random Variables},
  author={Maddison, Chris J. and Mnih, Andriy and Teh, Yee Whye},
  booktitle={International Conference on Learning Representations}, year={2017}, eprint={1611.00712}
}""",
    "gumbel": """@inproceedings{jang2017categorical,
  title={Categorical Reparameterization with {Gumbel}-Softmax},
  author={Jang, Eric and Gu, Shixiang and Poole, Ben},
  booktitle={International Conference on Learning Representations}, year={2017}, eprint={1611.01144}
}""",
    "conv_ladder": """@inproceedings{child2021very,
  title={Very Deep {VAE}s Generalize Autoregressive Models and Can Outperform Them on Images},
  author={Child, Rewon},
  booktitle={International Conference on Learning Representations}, year={2021}, eprint={2011.10650}
}""",
    "ResidualNormal": """@inproceedings{vahdat2020nvae,
  title={{NVAE}: A Deep Hierarchical Variational Autoencoder},
  author={Vahdat, Arash and Kautz, Jan},
  booktitle={Advances in Neural Information Processing Systems}, volume={33}, year={2020}, eprint={2007.03898}
}""",
    "vqvae": """@inproceedings{vandenoord2017neural,
  title={Neural Discrete Representation Learning},
  author={van den Oord, Aaron and Vinyals, Oriol and Kavukcuoglu, Koray},
  booktitle={Advances in Neural Information Processing Systems}, year={2017}, eprint={1711.00937}
}""",
    "vqvae2": """@inproceedings{razavi2019generating,
  title={Generating Diverse High-Fidelity Images with {VQ-VAE-2}},
  author={Razavi, Ali and van den Oord, Aaron and Vinyals, Oriol},
  booktitle={Advances in Neural Information Processing Systems}, volume={32}, year={2019}, eprint={1906.00446}
}""",
    "fsq": """@inproceedings{mentzer2024finite,
  title={Finite Scalar Quantization: {VQ-VAE} Made Simple},
  author={Mentzer, Fabian and Minnen, David and Agustsson, Eirikur and Tschannen, Michael},
  booktitle={International Conference on Learning Representations}, year={2024}, eprint={2309.15505}
}""",
    "rotation": r"""@inproceedings{fifty2025restructuring,
  title={Restructuring Vector Quantization with the Rotation Trick},
  author={Fifty, Christopher and Junkins, Ronald G. and Duan, Dennis and Iyengar, Aniketh and Liu, Jerry W. and Amid,
    Ehsan and Thrun, Sebastian and R{\'e}, Christopher},
  booktitle={International Conference on Learning Representations}, year={2025}, eprint={2410.06424}
}""",
    "PixelCNN": """@inproceedings{oord2016conditional,
  title={Conditional Image Generation with {PixelCNN} Decoders},
  author={van den Oord, A{\\"a}ron and Kalchbrenner, Nal and Espeholt, Lasse and Vinyals, Oriol and Graves, Alex and
    Kavukcuoglu, Koray},
  booktitle={Advances in Neural Information Processing Systems}, volume={29}, year={2016}, eprint={1606.05328}
}""",
    "Transformer": """@inproceedings{vaswani2017attention,
  title={Attention Is All You Need},
  author={Vaswani, Ashish and Shazeer, Noam and Parmar, Niki and Uszkoreit, Jakob and Jones, Llion and Gomez, Aidan N.
    and Kaiser, {\\L}ukasz and Polosukhin, Illia},
  booktitle={Advances in Neural Information Processing Systems}, volume={30}, year={2017}, eprint={1706.03762}
}""",
    "diffusion": """@inproceedings{ho2020denoising,
  title={Denoising Diffusion Probabilistic Models},
  author={Ho, Jonathan and Jain, Ajay and Abbeel, Pieter},
  booktitle={Advances in Neural Information Processing Systems}, volume={33}, pages={6840--6851}, year={2020},
  eprint={2006.11239}
}""",
    "Diffusion": """@inproceedings{kingma2021variational,
  title={Variational Diffusion Models},
  author={Kingma, Diederik P. and Salimans, Tim and Poole, Ben and Ho, Jonathan},
  booktitle={Advances in Neural Information Processing Systems}, volume={34}, pages={21696--21707}, year={2021},
  eprint={2107.00630}
}""",
    "jumps": """@inproceedings{song2021denoising,
  title={Denoising Diffusion Implicit Models},
  author={Song, Jiaming and Meng, Chenlin and Ermon, Stefano},
  booktitle={International Conference on Learning Representations}, year={2021}, eprint={2010.02502}
}""",
    "Unet": """@inproceedings{ronneberger2015unet,
  title={{U-Net}: Convolutional Networks for Biomedical Image Segmentation},
  author={Ronneberger, Olaf and Fischer, Philipp and Brox, Thomas},
  booktitle={Medical Image Computing and Computer-Assisted Intervention}, pages={234--241}, year={2015},
  eprint={1505.04597}
}""",
    "adam": """@inproceedings{kingma2015adam,
  title={Adam: A Method for Stochastic Optimization},
  author={Kingma, Diederik P. and Ba, Jimmy},
  booktitle={International Conference on Learning Representations}, year={2015}, eprint={1412.6980}
}""",
}
_ALSO = {
    "beta_vae": ["vae"],
    "conditional": ["vae"],
    "semi_supervised": ["vae"],
    "semi_supervised_aae": ["aae"],
    "ConditionalNormal": ["conditional"],
    "iwae": ["vae"],
    "renyi": ["vae"],
    **{name: ["tighter", "iwae", "vae"] for name in ("miwae", "ciwae", "piwae")},
    "Piwae": ["tighter"],
    "wae_mmd": ["MMD"],
    "infovae": ["vae", "MMD"],
    "annealed_vae": ["vae", "capacity"],
    **{name: ["vae"] for name in ("beta_tc_vae", "dip_vae", "factor_vae")},
    "LogisticMixture": ["DiscretisedLogistic"],
    "LogRatio": ["factor_vae"],
    "TotalCorrelation": ["beta_tc_vae"],
    "Covariance": ["dip_vae"],
    **{name: ["autoencoder"] for name in ("dropout", "contractive", "denoising", "stacked")},
    **{game: ["f-gan"] for game in ("KL", "ReverseKL", "PearsonChiSquared", "SquaredHellinger")},
    "GaussianMixture": ["regularised"],  # ex-post density estimation
    "flow_vae": ["vae", "Flow"],
    "hvae": ["vae", "iwae"],
    "ladder": ["vae"],
    "IAF": ["free_bits", "Autoregressive"],  # the work that has them both
    "MAF": ["zuko"],
    "NSF": ["zuko"],
    "vampprior": ["vae"],
    "VampPrior": ["vampprior"],
    "concrete": ["gumbel", "vae"],
    "diffusion": ["Diffusion"],
    "Concrete": ["concrete", "gumbel"],
    "conv_ladder": ["vae", "ladder"],
}


def _named(value: Any) -> Iterator[str]:
    """The parts in an argument's JSON form, and the words that they are given."""
    if isinstance(value, dict):
        for part, words in value.items():
            yield part
            for word, its in words.items():
                yield from [word] if its else []
                yield from _named(its)


def cite(spec: dict[str, Any]) -> list[str]:
    """BibTeX entries for a `model.spec`: the recipe, what it builds on, its parts, the optimiser.

    Example:
        >>> [entry.splitlines()[0] for entry in cite({"recipe": "vae", "arguments": {"free_bits": 0.1}})]
        ['@inproceedings{kingma2014auto,', '@inproceedings{kingma2016improved,', '@inproceedings{kingma2015adam,']
    """
    used = [spec["recipe"]]
    for name, value in spec["arguments"].items():
        used += [name] if value else []
        used += [value] if isinstance(value, str) else []  # one of several, named by a word
        if isinstance(value, dict):
            used += _named(value)
    used += ["adam"] if spec["arguments"].get("solver", "gradient") == "gradient" else []
    used = [work for name in used for work in (name, *_ALSO.get(name, []))]
    return [_WORKS[name] for name in dict.fromkeys(used) if name in _WORKS]
