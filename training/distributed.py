"""The sharding plan of FSDP2: which modules are units, in what type they are gathered, what accelerate is told of it.

A unit is gathered just before it runs and freed after. Units are the decoder layers, each branch of a dual-branch layer
one of its own, so that a dual-branch layer never needs more memory at once than a plain one. The interpolators are with
the rest of the model. Frozen parameters are sharded like the others, and have neither gradient nor optimizer state.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel, TrainingArguments

from cllm_model.families import FAMILIES
from training.recipe import RecipeError, Train

UNITS = tuple(family.decoder_layer for family in FAMILIES.values())


def units(model: PreTrainedModel) -> list[nn.Module]:
    """The modules of a model that are sharded one by one, in the order in which they run."""
    return [module for module in model.modules() if isinstance(module, UNITS)]


def precision_policy(train: Train) -> MixedPrecisionPolicy:
    """In what type parameters are gathered and gradients are added up: bf16 saves memory, sums stay in fp32."""
    gathered = torch.bfloat16 if train.precision == "bf16" else torch.float32
    return MixedPrecisionPolicy(param_dtype=gathered, reduce_dtype=torch.float32)


def shard(model: PreTrainedModel, mesh: DeviceMesh, train: Train) -> None:
    """Shard a model over a mesh in place, by the plan; its parameters become DTensors."""
    policy = precision_policy(train)
    for unit in units(model):
        fully_shard(unit, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def fsdp_arguments(train: Train) -> dict[str, Any]:
    """What transformers' training arguments say of sharding; nothing without it.

    Raises:
        RecipeError: There is no accelerator: accelerate would use DDP instead, without a word.
    """
    if train.sharding == "none":
        return {}
    if not torch.accelerator.is_available():
        raise RecipeError("train.sharding = 'fsdp': needs an accelerator, this machine has CPUs only; use 'none'")
    return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}


def tell_plan(args: TrainingArguments, model: PreTrainedModel, train: Train) -> None:
    """Put the plan for a model into transformers' training arguments; accelerate has defaults of its own for both."""
    if train.sharding == "fsdp":
        args.fsdp_plugin_args |= {
            "transformer_cls_names_to_wrap": sorted({type(unit).__name__ for unit in units(model)}),
            "mixed_precision_policy": precision_policy(train),
        }


def whole(model: PreTrainedModel) -> PreTrainedModel:
    """A sharded model as an ordinary one, in fp32 and on the CPU, in every process; all of them must call it."""
    state: dict[str, Any] = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    tensors = {name: tensor.cpu() for name, tensor in state.items()}
    plain: Any = type(model).__bases__[1]  # FSDP2 puts a class of its own in front of it
    gathered: PreTrainedModel = plain.from_pretrained(
        None, config=model.config, state_dict=tensors, dtype=torch.float32
    )
    for name, parameter in model.named_parameters():
        gathered.get_parameter(name).requires_grad_(parameter.requires_grad)
    return gathered
