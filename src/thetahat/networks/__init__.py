"""Functions with parameters: no likelihood in here."""

from .convnet import ConvNet
from .denoiser import Denoiser
from .masked import MaskedMLP
from .mlp import mlp
from .pixels import PixelTransformer
from .pretrained import Pretrained
from .standardise import Standardise
from .transformer import Transformer

__all__ = ["ConvNet", "Denoiser", "MaskedMLP", "PixelTransformer", "Pretrained", "Standardise", "Transformer", "mlp"]
