"""The walls between the layers: who may import whom, and that `import nshot` stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "nshot"

# a room knows the rooms above it in this list, never its neighbours on the same line and never those below
LAYERS = [
    {"errors", "types", "paths"},
    {"unit", "metrics", "atomic", "bounded", "extras", "pages"},
    {"objects"},
    {"images"},
    {"sketchbook", "models", "labels"},
    {"encoders"},
    {"store"},
    {"embeddings"},
    {"pipeline"},
    {"embedder"},
    {"decision"},
    {"classifier"},
    {"few_shot", "search", "regions"},
    {"datasets"},
    {"output"},
    {"evaluation"},
    {"model"},
    {"train"},
    {"server", "distributed"},
    {"cli"},
    {"__main__"},
]

MOST_FLAT = 14  # modules right under src/nshot, __init__ and __main__ among them; everything else has a room

# runtimes and other heavy things, each behind one door
DOORS = {
    "openvino": {"encoders"},
    "torch": {"encoders.torch", "encoders.torch_ops", "evaluation.supervised", "train"},
    "transformers": {"encoders.torch", "evaluation.supervised", "train"},
    "peft": {"train"},
    "sklearn": {"few_shot.sklearn"},
    "tokenizers": {"models.tokenizer", "models.sentencepiece", "train"},
    "huggingface_hub": {"models.hub", "datasets.hub", "images.hub"},
    "pyarrow": {"extras"},
    "click": {"cli"},
    "faiss": {"extras"},
    "numkong": {"extras"},
    "pycocotools": {"extras"},
    "obstore": {"extras"},
    "ray": {"distributed.ray"},
    "jinja2": {"pages.engine"},
    "starlette": {"server"},
    "uvicorn": {"server.run"},
}


def modules() -> dict[str, Path]:
    names = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        names[".".join(part for part in parts if part != "__init__")] = path
    return names


def imports(path: Path) -> set[str]:
    """Dotted names that a module imports anywhere in it, those for type checkers among them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def layer(module: str) -> int:
    top = module.split(".")[0]
    return next(number for number, names in enumerate(LAYERS) if top in names)


@pytest.mark.parametrize("module", [name for name in modules() if name])
def test_imports_point_down_the_layers_only(module: str) -> None:
    known = {name.split(".")[0] for name in modules() if name}
    for imported in imports(modules()[module]):
        top, _, rest = imported.partition(".")
        neighbour = rest.split(".")[0]
        if top == "nshot" and neighbour in known and neighbour != module.split(".")[0]:
            assert layer(neighbour) < layer(module), f"{module} imports {imported}"


def test_few_modules_stand_outside_of_the_rooms() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_FLAT


@pytest.mark.parametrize("module", list(modules()))
def test_a_runtime_is_imported_behind_its_own_door(module: str) -> None:
    for imported in imports(modules()[module]):
        doors = DOORS.get(imported.split(".")[0])
        assert doors is None or module in doors or module.split(".")[0] in doors, (
            f"{module} imports {imported}"
        )


def test_images_are_decoded_within_limits_everywhere() -> None:
    """Outside of its room, nobody calls ``decode``, which knows neither the budget nor the time."""
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name != "images":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module == "nshot.images.decode":
                    assert "decode" not in [alias.name for alias in node.names], path


def test_importing_nshot_loads_no_runtime() -> None:
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, nshot; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {
        "numpy",
        "PIL",
        "openvino",
        "torch",
        "transformers",
        "tokenizers",
        "huggingface_hub",
        "click",
        "tqdm",
    }
    assert not heavy & set(loaded)
