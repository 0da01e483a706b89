"""Every way to learn something new from a base, under one interface: the recipe's own and what it is compared with.

A method decides what trains and what becomes of it afterwards. Data and loss are the same for all of them: replay is a
matter of the data, self-rehearsal one of the loss, and both combine with each.
"""

from training.methods.continued import Continued
from training.methods.control import Control
from training.methods.lora import LoRA
from training.methods.method import Method, trainable_parameters
from training.methods.plain import Full, Half, Partial
from training.methods.weight_space import lines, wise_ft

METHODS: dict[str, type[Method]] = {method.name: method for method in (Control, Continued, Full, Partial, LoRA, Half)}
"""Name in recipes and reports -> method. Stacking (LLaMA-Pro) is `control` with an expansion of kind `stack`."""

__all__ = [
    "METHODS",
    "Continued",
    "Control",
    "Full",
    "Half",
    "LoRA",
    "Method",
    "Partial",
    "lines",
    "trainable_parameters",
    "wise_ft",
]
