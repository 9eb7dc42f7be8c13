"""Functions with parameters: no likelihood in here."""

from .mlp import mlp
from .pretrained import Pretrained
from .transformer import Transformer

__all__ = ["Pretrained", "Transformer", "mlp"]
