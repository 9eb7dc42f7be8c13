"""Functions with parameters: no likelihood in here."""

from .denoiser import Denoiser
from .masked import MaskedMLP
from .mlp import mlp
from .pixels import PixelTransformer
from .pretrained import Pretrained
from .transformer import Transformer

__all__ = ["Denoiser", "MaskedMLP", "PixelTransformer", "Pretrained", "Transformer", "mlp"]
