"""Peak memory of loading, converting, expanding and merging a checkpoint, over the bytes of its weights.

Run: python benchmarks/checkpoint_memory.py. A random Llama of some 400 MB is built from a seed, tensor by
tensor, in a temporary directory. Each operation runs in a process of its own, which imports and warms up first on a
tiny model; what is printed is the growth of its resident set from there to its peak (VmHWM, reset before), which counts
the pages of files that are mapped into memory too. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

import cllm_model  # noqa: F401 - registers the classes
from cllm_model.checkpoint import expected_shapes
from cllm_model.convert import convert
from cllm_model.expand import expand
from cllm_model.merge import merge
from cllm_model.merge_two import merge_two
from cllm_model.tensors import LazyTensor, read_headers, write_tensors

STATUS = Path("/proc/self/status")
SIZES = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "large": {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 6, "num_attention_heads": 16},
}


def write_base(directory: Path, size: str) -> None:
    """Write a random Llama, holding one tensor at a time."""
    directory.mkdir()
    config = LlamaConfig(vocab_size=8000, architectures=["LlamaForCausalLM"], dtype="float32", **SIZES[size])
    generator = torch.Generator().manual_seed(0)

    def random(shape: tuple[int, ...]) -> LazyTensor:
        return LazyTensor(shape, "F32", lambda: 0.02 * torch.randn(shape, generator=generator))

    write_tensors(directory, {name: random(shape) for name, shape in expected_shapes(config).items()})
    config.save_pretrained(directory)


def load(source: Path, out: Path) -> object:
    """Load with Hugging Face, and touch every weight."""
    model = AutoModelForCausalLM.from_pretrained(source)
    return model, sum(parameter.sum() for parameter in model.parameters())


OPERATIONS = {
    "load": ("dual", load),
    "expand": ("base", lambda source, out: expand(source, out, len_layers(source) // 2, "dlerp")),
    "convert": ("dual", lambda source, out: convert(source, out, "published")),
    "merge": ("dual", merge),
    "merge two": ("dual", lambda source, out: merge_two(source, source, out)),
    "merge two, keeping branches": ("dual", lambda source, out: merge_two(source, source, out, keep_branches=True)),
}
"""Name -> checkpoint that it reads, and what it does."""


def len_layers(directory: Path) -> int:
    """Return the number of layers of a checkpoint."""
    return json.loads((directory / "config.json").read_text())["num_hidden_layers"]


def megabytes(field: str) -> float:
    """Return a field of this process's memory status."""
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024 / 1e6


def measure(operation: str, root: Path) -> float:
    """Return the growth of the resident set, in MB, up to its peak while an operation runs."""
    kind, run = OPERATIONS[operation]
    run(root / "tiny" / kind, root / "tiny" / operation)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = megabytes("VmRSS")
    kept = run(root / "large" / kind, root / "large" / operation)
    growth = megabytes("VmHWM") - before
    del kept  # a loaded model counts until here
    return growth


def main() -> None:
    """Print one line for each operation, or measure one of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", nargs=2, metavar=("OPERATION", "ROOT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        operation, root = arguments.measure
        print(measure(operation, Path(root)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for size in SIZES:
            (root / size).mkdir()
            write_base(root / size / "base", size)
            expand(root / size / "base", root / size / "dual", SIZES[size]["num_hidden_layers"] // 2, "dlerp")
        for operation, (kind, _) in OPERATIONS.items():
            command = [sys.executable, __file__, "--measure", operation, str(root)]
            printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            growth = float(printed.split()[-1])
            tensors = read_headers(root / "large" / kind).values()
            weights = sum(tensor.nbytes for tensor in tensors) / 1e6
            largest = max(tensor.nbytes for tensor in tensors) / 1e6
            print(
                f"{operation:<30} peak growth {growth:6.0f} MB / weights {weights:4.0f} MB = {growth / weights:.2f}"
                f"  (largest tensor {largest:.0f} MB)"
            )


if __name__ == "__main__":
    main()
