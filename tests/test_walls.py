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
    {"unit", "metrics", "atomic", "bounded", "extras", "pages", "seals"},
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


# who may read a file whole without a bound, since it is the person's own, or was measured just before
WHOLE = {
    "cli.doctor": "the system's own description of itself",
    "encoders.int8": "in the cache: what a measurement said of a model",
    "evaluation.models": "the system's own description of itself",
    "images.apart": "the system's own description of itself",
    "images.budget": "the system's own description of itself",
    "images.hub": "its size was judged",
    "images.resample": "a file of the package",
    "labels.wordnet": "installed on this machine",
    "models.digests": "in the cache",
    "models.files": "its size was judged",
    "models.hub": "in the Hub's cache: a commit",
    "objects.folder": "a draft that was just written",
    "objects.settings": "the person's own settings",
    "pages.engine": "a file of the package",
    "seals": "in the cache: a key",
    "search.index": "its size was judged by the vectors",
    "server.page": "made here",
    "server.session.taking_away": "made here",
    "train.data": "made by the same run",
    "train.run": "made by the same run",
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


def test_no_file_that_others_may_have_made_is_read_whole_without_a_bound() -> None:
    """A few bytes can claim gigabytes, or be a device without an end: see ``nshot.bounded``."""
    whole = set()
    for name, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called, owner = node.func.attr, node.func.value
                of_json = isinstance(owner, ast.Name) and owner.id == "json"
                if called in ("read_bytes", "read_text", "readlines") or (called == "load" and of_json):
                    whole.add(name)
    assert whole == set(WHOLE)


def test_commands_print_by_the_one_function_that_writes_out_escape_codes() -> None:
    """A label, a file's name, a report: whatever they hold, a terminal acts on none of it."""
    raw = {
        "cli",
        "cli.options.talk",
        "cli.completion",
        "cli.next",
        "cli.embed",
        "cli.train",
    }  # itself, bars, data
    found = {
        name
        for name, path in modules().items()
        if name.startswith("cli") and "click.echo" in path.read_text()
    }
    assert found == raw
