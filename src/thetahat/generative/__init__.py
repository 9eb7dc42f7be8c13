"""Models that draw what they have seen: images, and other observations without a response.

    bound, vae          log p(x) ≥ E_q(z|x)[log p(x | z)] − KL(q(z | x) ‖ p(z))        Kingma and Welling (2014)
    beta_vae            E_q(z|x)[log p(x | z)] − β KL, free bits: objectives, no bounds   Higgins et al. (2017)
    flow                log p(x) = log p(f(x)) + log |det ∂f/∂x|                        Rezende and Mohamed (2015)
    dequantised         log P(k) ≥ E_u log p(k + u)                                     Theis et al. (2016)
    fully_visible       log p(x) = Σ_d log p(x_d | x_<d)                                MADE, PixelCNN, PixelTransformer
    schedule, diffusion, samplers, probability_flow, noise_weights, importance_times
                        log p(x) ≥ −Σ_t KL(q(x_{t−1} | x_t, x) ‖ p(x_{t−1} | x_t)) …   Ho et al. (2020), Kingma et al. (2021)
    labels, classify    p(y | class), and p(class | y) by Bayes' rule
    discrete, published, scaling, audited_model, evaluated, claims, audit               others' networks, and what they claim
    images, augmented, noised                                                           where the data come from
    convnet, decoder, denoiser, masked, pixel_cnn, pixels, unet                         their networks

Read in this order. Built on the spine alone.
"""

from ..made import record
from .audit import Audit, audit
from .augmented import Augmented, Erasures, Flips, Shifts
from .beta_vae import BetaVAE
from .bound import Bound
from .classify import class_probabilities
from .convnet import ConvNet
from .decoder import LogisticDecoder
from .denoiser import Denoiser
from .dequantised import Dequantised
from .diffusion import Diffusion
from .discrete import DiscreteDiffusion
from .flow import Flow
from .fully_visible import FullyVisible
from .image_files import ImageFolder
from .images import Binarised, Images
from .importance_times import ImportanceTimes
from .labels import Labelled
from .masked import MaskedMLP
from .noise_weights import FlowMatching, MinSNR, Simple
from .noised import Noised
from .pixel_cnn import PixelCNN
from .pixels import PixelTransformer
from .probability_flow import ProbabilityFlow
from .published import VE, VP, SubVP
from .samplers import sample
from .schedule import Cosine, Linear, Schedule, Straight
from .unet import UNet
from .vae import VAE

record(
    BetaVAE,
    ConvNet,
    Denoiser,
    Diffusion,
    DiscreteDiffusion,
    FullyVisible,
    Labelled,
    LogisticDecoder,
    MaskedMLP,
    PixelCNN,
    PixelTransformer,
    ProbabilityFlow,
    UNet,
    VAE,
)
record(Flow, by=("spline", "affine"))
record(Cosine, ImportanceTimes, Linear, Straight, suffix="Schedule")

__all__ = [
    "VAE",
    "VE",
    "VP",
    "Audit",
    "Augmented",
    "BetaVAE",
    "Binarised",
    "Bound",
    "ConvNet",
    "Cosine",
    "Denoiser",
    "Dequantised",
    "Diffusion",
    "Erasures",
    "Flips",
    "DiscreteDiffusion",
    "Flow",
    "FlowMatching",
    "FullyVisible",
    "ImageFolder",
    "Images",
    "ImportanceTimes",
    "Labelled",
    "Linear",
    "LogisticDecoder",
    "MaskedMLP",
    "MinSNR",
    "Noised",
    "PixelCNN",
    "PixelTransformer",
    "ProbabilityFlow",
    "Schedule",
    "Shifts",
    "Simple",
    "Straight",
    "UNet",
    "class_probabilities",
    "SubVP",
    "audit",
    "sample",
]
