"""Models that draw what they have seen: images, and other observations without a response.

    bound, vae          log p(x) ≥ E_q(z|x)[log p(x | z)] − KL(q(z | x) ‖ p(z))        Kingma and Welling (2014)
    flow                log p(x) = log p(f(x)) + log |det ∂f/∂x|                        Rezende and Mohamed (2015)
    dequantised         log P(k) ≥ E_u log p(k + u)                                     Theis et al. (2016)
    fully_visible       log p(x) = Σ_d log p(x_d | x_<d)                                MADE, PixelCNN, PixelTransformer
    schedule, diffusion, samplers, probability_flow, noise_weights
                        log p(x) ≥ −Σ_t KL(q(x_{t−1} | x_t, x) ‖ p(x_{t−1} | x_t)) …   Ho et al. (2020), Kingma et al. (2021)
    discrete, published, scaling, audited_model, evaluated, claims, audit               others' networks, and what they claim
    images, augmented, noised                                                           where the data come from
    convnet, decoder, denoiser, masked, pixels, unet                                    their networks

Read in this order. Built on the spine alone.
"""

from ..made import record
from .audit import Audit, audit
from .augmented import Augmented, Shifts
from .bound import Bound
from .convnet import ConvNet
from .decoder import LogisticDecoder
from .denoiser import Denoiser
from .dequantised import Dequantised
from .diffusion import Diffusion
from .discrete import DiscreteDiffusion
from .flow import Flow
from .fully_visible import FullyVisible
from .images import Binarised, Images
from .masked import MaskedMLP
from .noise_weights import MinSNR, Simple
from .noised import Noised
from .pixels import PixelTransformer
from .probability_flow import ProbabilityFlow
from .published import VE, VP, SubVP
from .samplers import sample
from .schedule import Cosine, Linear, Schedule
from .unet import UNet
from .vae import VAE

record(
    ConvNet,
    Denoiser,
    Diffusion,
    DiscreteDiffusion,
    FullyVisible,
    LogisticDecoder,
    MaskedMLP,
    PixelTransformer,
    ProbabilityFlow,
    UNet,
    VAE,
)
record(Flow, by=("spline", "affine"))
record(Cosine, Linear, suffix="Schedule")

__all__ = [
    "VAE",
    "VE",
    "VP",
    "Audit",
    "Augmented",
    "Binarised",
    "Bound",
    "ConvNet",
    "Cosine",
    "Denoiser",
    "Dequantised",
    "Diffusion",
    "DiscreteDiffusion",
    "Flow",
    "FullyVisible",
    "Images",
    "Linear",
    "LogisticDecoder",
    "MaskedMLP",
    "MinSNR",
    "Noised",
    "PixelTransformer",
    "ProbabilityFlow",
    "Schedule",
    "Shifts",
    "Simple",
    "SubVP",
    "UNet",
    "audit",
    "sample",
]
