"""What was observed: batches and where they come from."""

from .batch import Batch
from .frame import Frame
from .preferences import Preferences
from .rollouts import Rollouts
from .source import Source, Tensors
from .table import Encoder, Table

__all__ = ["Batch", "Encoder", "Frame", "Preferences", "Rollouts", "Source", "Table", "Tensors"]
