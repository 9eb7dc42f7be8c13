"""p(data | θ): one readable file a model."""

from .autoregressive import Autoregressive
from .base import Model
from .conditional import Conditional
from .density import Density
from .mixture import Mixture
from .policy import Policy
from .preference import BradleyTerry
from .regression import Regression

__all__ = ["Autoregressive", "BradleyTerry", "Conditional", "Density", "Mixture", "Model", "Policy", "Regression"]
