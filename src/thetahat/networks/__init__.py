"""Functions with parameters: no likelihood in here."""

from ..made import record
from .convnet import ConvNet
from .decoder import LogisticDecoder
from .denoiser import Denoiser
from .embedding import embedded
from .lora import adapt, merge
from .masked import MaskedMLP
from .mlp import mlp
from .normaliser import Normaliser
from .pixels import PixelTransformer
from .pretrained import Pretrained
from .reward import Reward
from .standardise import Standardise
from .transformer import Transformer
from .unet import UNet

record(ConvNet, Denoiser, LogisticDecoder, MaskedMLP, Normaliser, PixelTransformer, Standardise, Transformer, UNet)

__all__ = [
    "adapt",
    "merge",
    "ConvNet",
    "Denoiser",
    "LogisticDecoder",
    "MaskedMLP",
    "Normaliser",
    "PixelTransformer",
    "Pretrained",
    "Reward",
    "Standardise",
    "Transformer",
    "UNet",
    "embedded",
    "mlp",
]
