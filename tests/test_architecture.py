"""The folders are the architecture: imports go one way, and the wheel ships what it should."""

import ast
import graphlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {
    "cllm_model": set(),
    "training": {"cllm_model"},
    "serve": {"cllm_model"},
    "ui": set(),
    "demo": set(),
    "cllm.py": set(),
}
OURS = {name.removesuffix(".py") for name in ALLOWED}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, inside functions too."""
    packages = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            packages.add(node.module.split(".")[0])
    return packages


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part):
    files = [ROOT / part] if part.endswith(".py") else sorted((ROOT / part).rglob("*.py"))
    assert files
    for file in files:
        wrong = imported(file) & OURS - ALLOWED[part] - {part}
        assert not wrong, f"{file.relative_to(ROOT)} imports {', '.join(sorted(wrong))}"


def modules_imported(path: Path) -> set[str]:
    """Our own modules that a file imports when it is imported itself; `from package import module` names the module."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if source_of(name) else node.module for name in inner}
    return {name for name in found if source_of(name)}


def source_of(module: str) -> Path | None:
    """The file of one of our modules; None for any other name."""
    place = ROOT / module.replace(".", "/")
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


@pytest.mark.parametrize("part", sorted(OURS - {"cllm"}))
def test_no_modules_import_each_other_in_a_circle(part):
    """A package's own `__init__` may import its modules, which run before it is whole; they may not import it."""
    graph = {}
    for file in sorted((ROOT / part).rglob("*.py")):
        name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = modules_imported(file)
    graphlib.TopologicalSorter(graph).prepare()


def test_vllm_is_imported_only_where_it_is_needed():
    """A family's file says which layer of vLLM's it is, and imports it when it is asked; see `modules_after`."""
    for file in sorted((ROOT / "cllm_model").rglob("*.py")):
        if not {"vllm", "families"} & set(file.relative_to(ROOT).parts):
            assert "vllm" not in imported(file), file


def modules_after(code: str) -> set[str]:
    script = f"import sys; {code}; print(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(result.stdout.split("\n")[-2].split())


def test_importing_the_model_registers_it_without_vllm():
    code = "import cllm_model; from transformers import AutoConfig; AutoConfig.for_model('control_llm')"
    assert "vllm" not in modules_after(code)


@pytest.mark.parametrize("command", ["ui", "demo", "serve", "train", "eval", "report", "expand"])
def test_help_is_light(command):
    """Help of a subcommand imports neither vllm nor gradio; help of page and server not even torch."""
    code = f"import cllm\ntry: cllm.main(['{command}', '--help'])\nexcept SystemExit as end: assert not end.code"
    modules = modules_after(f"exec({code!r})")
    assert not modules & {"vllm", "gradio"}
    if command in ("ui", "demo", "serve"):
        assert not modules & {"torch", "transformers"}


def test_wheel_ships_the_packages_and_the_demo_only(tmp_path):
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    files = zipfile.ZipFile(wheel).namelist()
    top = {name.split("/")[0] for name in files if ".dist-info" not in name}
    assert top == set(ALLOWED)
    for needed in (
        "cllm_model/vllm/model.py",
        "training/recipes/demo.yaml",
        "training/report/page.html.j2",
        "demo/report.json",
        "demo/LICENSE",
        "demo/model/config.json",
        "demo/model/model.safetensors",
        "demo/model/tokenizer.json",
    ):
        assert needed in files
