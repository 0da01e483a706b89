"""What a way to learn has to provide."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from transformers import PreTrainedModel


class Method(ABC):
    """One way to learn something new from a base."""

    name: ClassVar[str]

    @abstractmethod
    def prepare(self, base: Path, scratch: Path) -> PreTrainedModel:
        """Return a model to be trained, which still predicts what the base does; only what trains requires gradients.

        Args:
            base: Directory of a plain checkpoint.
            scratch: Directory to write to, if the method works on files.

        Raises:
            ValueError: The method's settings do not fit the base.
        """

    def finish(self, model: PreTrainedModel) -> PreTrainedModel:
        """Return what a trained model of `prepare` is saved and served as."""
        return model


def trainable_parameters(model: PreTrainedModel) -> int:
    """Number of parameters that a training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
