"""What processes share of a model in training, and what accelerate is told of it: FSDP2's plan, and DeepSpeed's ZeRO 2.

With FSDP2 a unit is gathered just before it runs and freed after. Units are the decoder layers, each branch of a
dual-branch layer one of its own, so that a dual-branch layer never needs more memory at once than a plain one. The
interpolators are with the rest of the model. Frozen parameters are sharded like the others, and have neither gradient
nor optimizer state. With ZeRO 2 each process has a whole model, and a share of gradients and optimizer state.

The recipe alone decides: what accelerate's launcher would switch on is refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel, TrainingArguments

from cllm_model.families import FAMILIES
from training.recipe import RecipeError, Train

UNITS = tuple(family.decoder_layer for family in FAMILIES.values())

_LAUNCHER = {
    "ACCELERATE_USE_DEEPSPEED": "false",
    "ACCELERATE_USE_FSDP": "false",
    "ACCELERATE_USE_MEGATRON_LM": "false",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "false",
    "ACCELERATE_MIXED_PRECISION": "no",
    "ACCELERATE_DYNAMO_BACKEND": "no",
}
"""What `accelerate launch` says of a training by environment variables -> the value that changes nothing."""

_ZERO_2 = {
    "zero_optimization": {"stage": 2},
    "train_batch_size": "auto",  # here and below: as transformers' arguments say
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


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


def sharding_arguments(train: Train) -> dict[str, Any]:
    """What transformers' training arguments say of sharding; nothing without it.

    Raises:
        RecipeError: This machine cannot shard so, or the launcher's environment asks for something else.
    """
    for name, off in _LAUNCHER.items():
        if os.environ.get(name, off).lower() != off:
            raise RecipeError(
                f"{name} = {os.environ[name]!r}: accelerate's launcher would change what the recipe says in `train`; "
                "say it there, and start with torchrun"
            )
    if train.sharding == "none":
        return {}
    if train.sharding == "zero2":
        if find_spec("deepspeed") is None:
            raise RecipeError(
                "train.sharding = 'zero2': needs DeepSpeed, which is not installed: pip install deepspeed"
            )
        return {"deepspeed": _ZERO_2}
    if not torch.accelerator.is_available():
        # accelerate would use DDP instead, without a word.
        raise RecipeError("train.sharding = 'fsdp': needs an accelerator, this machine has CPUs only; use 'none'")
    return {"fsdp": True, "fsdp_config": {"version": 2, "state_dict_type": "FULL_STATE_DICT"}}


@contextmanager
def environment_kept() -> Iterator[None]:
    """Take back what accelerate puts into the environment: the next training of the process would be sharded alike."""
    before = {name: os.environ.get(name) for name in _LAUNCHER}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def tell_plan(args: TrainingArguments, model: PreTrainedModel, train: Train) -> None:
    """Put the plan for a model into transformers' training arguments; accelerate has defaults of its own for both."""
    if train.sharding == "fsdp":
        args.fsdp_plugin_args |= {
            "transformer_cls_names_to_wrap": sorted({type(unit).__name__ for unit in units(model)}),
            "mixed_precision_policy": precision_policy(train),
        }


def whole(model: PreTrainedModel) -> PreTrainedModel:
    """A model that FSDP2 sharded as an ordinary one, in fp32 and on the CPU; all processes must call it.

    One that is not sharded is returned as it is.
    """
    if not isinstance(model, FSDPModule):
        return model
    state: dict[str, Any] = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    tensors = {name: tensor.cpu() for name, tensor in state.items()}
    plain: Any = type(model).__bases__[1]  # FSDP2 puts a class of its own in front of it
    gathered: PreTrainedModel = plain.from_pretrained(
        None, config=model.config, state_dict=tensors, dtype=torch.float32
    )
    for name, parameter in model.named_parameters():
        gathered.get_parameter(name).requires_grad_(parameter.requires_grad)
    return gathered
