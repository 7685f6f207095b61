"""What every folder promises: nothing of torch.nn in what is written by hand, word-for-word copies,
the anatomy, who imports whom, imports without effects, and files that are a short read."""

import ast
import importlib
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from tests.running import finish, start

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("*/__init__.py"))
STUDIES = "studies"  # which put several folders side by side
FOLDERS = [name for name in PACKAGES if name not in ("common", "docs", "tests", STUDIES)]
MODELS = [name for name in FOLDERS if (ROOT / name / "model.py").exists()]
MANUAL = [name for name in FOLDERS if name.endswith("_Manual")]

# A network that is written by hand: its class, its loss, and the shape of the inputs of a training
# step; of a language model, of tokens.
TRAINING_STEPS = {
    "MLP_Manual": ("MLP", "CrossEntropy", (16, 784)),
    "CNN_Manual": ("CNN", "CrossEntropy", (16, 1, 28, 28)),
    "RNN_Manual": ("LanguageModel", "SequenceCrossEntropy", (5, 3)),
    "Transformer_Manual": ("LanguageModel", "TokenCrossEntropy", (3, 5)),
}
MAX_LINES = {"train.py": 160, "common": 190, STUDIES: 250}  # a short read: about 150


def sources(package: str) -> dict[str, str]:
    """Its Python files, as path below the root -> source; not those in a reader's own runs."""
    paths = [path.relative_to(ROOT) for path in sorted((ROOT / package).rglob("*.py"))]
    return {
        path.as_posix(): (ROOT / path).read_text(encoding="utf-8")
        for path in paths
        if "runs" not in path.parts
    }


def words(text: str) -> set[str]:
    return set(text.split())


# ---- nothing of torch.nn, torch.autograd or torch.optim in what is written by hand ----

# where torch keeps layers, gradients and optimisers ready-made, or what leads there
SUBMODULES = words("autograd fx func functional jit nn ops optim overrides quantization")
# the layers and losses among torch's own functions, and what switches autograd on
FUNCTIONS = words(
    """
    adaptive_avg_pool1d adaptive_max_pool1d alpha_dropout alpha_dropout_ avg_pool1d batch_norm
    bilinear binary_cross_entropy_with_logits celu celu_ channel_shuffle conv1d conv2d conv3d
    conv_tbc conv_transpose1d conv_transpose2d conv_transpose3d convolution cosine_embedding_loss
    cosine_similarity ctc_loss dropout dropout_ embedding embedding_bag embedding_renorm_
    enable_grad feature_alpha_dropout feature_alpha_dropout_ feature_dropout feature_dropout_
    grid_sampler grid_sampler_2d grid_sampler_3d group_norm gru gru_cell hinge_embedding_loss
    instance_norm kl_div layer_norm lstm lstm_cell margin_ranking_loss max_pool1d
    max_pool1d_with_indices max_pool2d max_pool3d norm_except_dim pairwise_distance pdist
    pixel_shuffle pixel_unshuffle poisson_nll_loss rms_norm rnn_relu rnn_relu_cell rnn_tanh
    rnn_tanh_cell rrelu rrelu_ selu selu_ set_grad_enabled threshold threshold_
    triplet_margin_loss
    """
)
METHODS = words(  # of tensors, and most of them functions too
    "hardshrink log_softmax prelu relu relu_ requires_grad requires_grad_ retain_grad softmax"
)
FAMILIES = ("batch_norm_", "cudnn_", "fbgemm_", "miopen_", "mkldnn_", "native_", "quantized_", "_")
HARMLESS = {"__version__"}  # though private
UNKNOWN = "torch._"  # stands for a name that is put together as the program runs


def forbidden(name: str) -> bool:
    """Whether a dotted name leads to what a reader is to see written out."""
    parts = name.split(".")
    below_torch = parts[parts.index("torch") + 1 :] if "torch" in parts else []
    return bool({"nn", "autograd"} & set(parts)) or any(
        part in SUBMODULES | FUNCTIONS | METHODS | {"*"}
        or (part.startswith(FAMILIES) and part not in HARMLESS)
        for part in below_torch
    )


def imports(node: ast.AST) -> Iterator[tuple[str, str]]:
    """The full name of each thing that a statement imports, and the name it goes by here."""
    if isinstance(node, ast.Import):
        for item in node.names:
            yield item.name, item.asname or item.name
    elif isinstance(node, ast.ImportFrom):
        for item in node.names:
            yield f"{node.module or ''}.{item.name}", item.asname or item.name


def resolve(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """The full name of an expression that starts at an import, else None."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if isinstance(node, ast.Attribute):
        base = resolve(node.value, aliases)
        return base and f"{base}.{node.attr}"
    if isinstance(node, ast.NamedExpr):
        return resolve(node.value, aliases)
    if isinstance(node, ast.Call) and isinstance(node.func, (ast.Name, ast.Attribute)):
        called = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        strings = [a.value if isinstance(a, ast.Constant) else None for a in node.args]
        if called in ("__import__", "import_module"):
            return (strings and strings[0]) or UNKNOWN
        base = resolve(node.args[0], aliases) if node.args else None
        of_torch = base is not None and "torch" in base.split(".")
        if called == "vars" and of_torch:
            return UNKNOWN
        if called == "getattr" and (of_torch or (base is None and METHODS & set(strings[1:]))):
            return f"{base or 'torch'}.{strings[1] or '_'}"
    return None


def find_aliases(tree: ast.Module) -> dict[str, str]:
    """What names stand for, by imports and by assignments such as `t = torch`, in any scope."""
    aliases = {}
    for node in ast.walk(tree):
        for name, alias in imports(node):
            top = alias.split(".")[0]  # `import a.b` binds a
            aliases[top] = name if alias == top else top
    assignments = [n for n in ast.walk(tree) if isinstance(n, (ast.Assign, ast.NamedExpr))]
    for _ in range(3):  # chains of three names, in any order
        for node in assignments:
            name = resolve(node.value, aliases)
            for target in getattr(node, "targets", [getattr(node, "target", None)]):
                if name and "torch" in name.split(".") and isinstance(target, ast.Name):
                    aliases[target.id] = name
    return aliases


def names_used(node: ast.AST, aliases: dict[str, str]) -> Iterator[str]:
    """The full names that a node of the tree stands for."""
    yield from (name for name, _ in imports(node))
    name = resolve(node, aliases)
    if name:
        yield name
    elif isinstance(node, ast.Attribute):  # of a tensor, as far as one can tell
        of_self = isinstance(node.value, ast.Name) and node.value.id == "self"
        if node.attr in ("nn", "autograd") or (node.attr in METHODS and not of_self):
            yield f"torch.{node.attr}"
    elif isinstance(node, ast.keyword) and node.arg == "requires_grad":
        yield "torch.requires_grad"
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        if re.fullmatch(r"nn|autograd|torch(\.\w+)+", node.value):  # sys.modules[…], attrgetter
            yield node.value
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("eval", "exec"):
        yield UNKNOWN


def reached(source: str) -> list[str]:
    """The forbidden names that a module reaches."""
    tree = ast.parse(source)
    aliases = find_aliases(tree)
    names = {name for node in ast.walk(tree) for name in names_used(node, aliases)}
    return sorted(name for name in names if forbidden(name))


@pytest.mark.smoke
@pytest.mark.parametrize("folder", MANUAL)
def test_what_is_written_by_hand_reaches_nothing_ready_made(folder):
    found = {path: reached(source) for path, source in sources(folder).items()}
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize(
    "source",
    """
    import torch.nn
    import torch.nn as x
    import torch.nn.functional as F
    import torch.optim.lr_scheduler
    import torch, torch.autograd
    from torch import nn
    from torch import nn as layers, Tensor
    from torch import *
    from torch.nn.functional import relu
    from torch.nn import Linear as Layer
    from torch import conv2d as c
    from torch.func import grad
    from torch.autograd.functional import jacobian
    from torch._C._nn import linear
    from common.device import nn
    from common.device import torch as t; t.optim.SGD
    import torch; torch.nn.Linear(1, 2)
    import torch as t; t.nn
    import torch as t; t.relu(x)
    import torch; t = torch; t.lstm(x)
    import torch; t = torch; u = t; v = u; v.optim
    import torch; (t := torch).jit.script(f)
    import torch; relu = torch.relu
    import torch; torch.softmax(x, 1)
    import torch; torch.special.log_softmax(x, 1)
    import torch; torch.max_pool2d(x, 2)
    import torch; torch.embedding(w, i)
    import torch; torch.rnn_tanh(x)
    import torch; torch._VF.gru(x)
    import torch; torch.ops.aten.convolution(x)
    import torch; torch.cudnn_convolution(x)
    import torch; torch.native_layer_norm(x)
    import torch; torch.Tensor.softmax(x, 1)
    import torch; torch.enable_grad()
    import torch; torch.zeros(3, requires_grad=True)
    import torch; getattr(torch, "nn")
    import torch; getattr(torch, "batch_norm")
    import torch; getattr(torch, "n" + "n")
    import torch; getattr(torch, name)
    import torch; vars(torch)["nn"]
    import torch; torch.__dict__["dropout"]
    import importlib; importlib.import_module("torch.nn")
    from importlib import import_module as load; load("torch.optim")
    import importlib; importlib.import_module("torch." + name)
    import importlib; importlib.import_module("torch").autograd
    __import__("torch.nn")
    __import__("torch").optim
    import sys; sys.modules["torch.nn"]
    from torch import Tensor; Tensor.relu(x)
    x.softmax(1)
    (x + 1).relu()
    self.x.log_softmax(1)
    f = x.relu
    getattr(x, "softmax")(1)
    x.requires_grad_()
    x.requires_grad = True
    def f(t=1): return t.nn.functional
    def f(): import torch.nn
    eval("torch" + ".nn")
    """.strip().splitlines(),
    ids=str.strip,
)
def test_scanner_finds(source):
    assert reached(source.strip())


@pytest.mark.parametrize(
    "source",
    """
    import torch; torch.tanh(x) + torch.sigmoid(x) + torch.exp(x) + torch.erf(x)
    import torch; torch.logsumexp(x, 1) + torch.einsum("ij->i", x) + torch.addmm(b, x, w)
    import torch; torch.matmul(x, w).clamp(min=0).as_strided((1,), (1,)).unfold(0, 1, 1)
    from torch import Tensor, inference_mode
    import torch; torch.empty(3).uniform_(-1, 1).bernoulli_(0.5)
    import torch; torch.cuda.synchronize(torch.device("cuda"))
    import torch; print(torch.__version__)
    from MLP_Manual.utils.optim import SGD
    from MLP_Manual.utils import optim; optim.SGD
    from MLP_Manual.utils import functional; functional.softmax(x)
    from common.device import select_device; select_device("auto")
    class ReLU: "As torch.nn.ReLU, and torch.relu: by hand."
    self.softmax.forward(x)
    layer.backward(grad_output)
    getattr(layer, "grad_" + name)
    getattr(layer, name)
    from MLP_Manual.utils import optim; getattr(optim, name)
    args.dropout + args.batch_norm + args.embedding
    activation = "relu"
    model.eval()
    """.strip().splitlines(),
    ids=str.strip,
)
def test_scanner_leaves_alone(source):
    assert reached(source.strip()) == []


def test_scanner_knows_all_that_torch_shares_with_torch_nn_functional():
    shared = {name for name in set(dir(torch)) & set(dir(F)) if callable(getattr(torch, name))}
    lower = {name for name in shared if name == name.lower()}  # not the types
    assert {name for name in lower if not forbidden(f"torch.{name}")} == {"sigmoid", "tanh"}


@pytest.mark.smoke
@pytest.mark.parametrize("folder", [name for name in MODELS if name in MANUAL])
def test_training_step_runs_without_autograd(folder):
    network, loss, shape = TRAINING_STEPS[folder]
    network = getattr(importlib.import_module(f"{folder}.model"), network)
    losses = importlib.import_module(f"{folder}.utils.losses")
    optim = importlib.import_module(f"{folder}.utils.optim")
    torch.manual_seed(0)
    with torch.inference_mode():
        model = network()
        criterion, optimizer = getattr(losses, loss)(), optim.AdamW(model, lr=1e-3)
        before = {name: parameter.clone() for name, parameter in model.parameters().items()}
        inputs, labels = torch.randn(shape), torch.randint(10, shape[:1])
        if network.__name__ == "LanguageModel":
            inputs, labels = torch.randint(10, shape), torch.randint(10, shape)
        history = []
        for _ in range(3):
            loss = criterion.forward(model.forward(inputs), labels)
            model.backward(criterion.backward())
            optimizer.step()
            history.append(loss.item())
    assert history[2] < history[0]
    after = model.parameters()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_autograd_would_fail_in_that_step():
    with torch.inference_mode(), pytest.raises(RuntimeError):
        torch.nn.Linear(3, 2)(torch.randn(4, 3)).sum().backward()


# ---- word-for-word copies ----


def drifted(folders: dict[str, Iterable[str]]) -> dict[str, list[str]]:
    """Name -> folders, for classes and functions that several folders have, not all alike.

    `folders` holds the sources of each folder's modules.
    """
    versions = defaultdict(dict)
    for folder, modules in folders.items():
        for source in modules:
            for node in ast.parse(source).body:
                if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                    versions[node.name][folder] = ast.dump(node)
    return {name: sorted(v) for name, v in versions.items() if len(set(v.values())) > 1}


def test_copies_between_the_folders_written_by_hand_are_word_for_word():
    assert drifted({folder: sources(f"{folder}/utils").values() for folder in MANUAL}) == {}


COPY = 'class A:\n    """Doc."""\n\n    def f(self, x):\n        return x + 1\n'


@pytest.mark.parametrize(
    "other, differs",
    [
        (COPY, False),
        (COPY.replace("x + 1", "x  +  1  # a comment"), False),
        (COPY.replace("class A", "class B") + "\n\ndef f():\n    pass\n", False),
        (COPY.replace("x + 1", "x + 2"), True),
        (COPY.replace("Doc.", "Another."), True),
        (COPY.replace("(self, x)", "(self, x: int)"), True),
        ("def A():\n    pass\n", True),
    ],
)
def test_drifted_copies_are_found(other, differs):
    found = drifted({"One": [COPY], "Two": ["", other]})
    assert found == ({"A": ["One", "Two"]} if differs else {})


# modules that have one name and are not copies, with what makes them differ
OWN = {
    "model.py": "the network",
    "train.py": "its loop",
    "test.py": "its evaluation",
    "profile_step.py": "by hand, layer by layer, and by PyTorch's profiler",
    "generate.py": "what it draws or writes",
    "predict.py": "what it reads, and shows of the network",
    "translate.py": "its tensors' way to the device",
    "dataset/__init__.py": "which datasets the folder learns",
    "dataset/strings.py": "aⁿbⁿ and echoes to go on with; strings to translate",
    "dataset/texts.py": "reviews with their class; a text as a stream of characters",
    "utils/attention.py": "by hand, and by scaled_dot_product_attention",
    "utils/augment.py": "by hand, and by grid_sample",
    "utils/build.py": "of the flags that the network has",
    "utils/cache.py": "of the keys and values that the network has",
    "utils/evaluation.py": "by hand, and by PyTorch",
    "utils/layers.py": "by hand: those that the network has",
    "utils/losses.py": "those that the network has",
    "utils/modern.py": "by hand, and by scaled_dot_product_attention",
    "utils/optim.py": "by hand, and the names of torch.optim's",
    "utils/plots.py": "what there is to see",
    "utils/sampling.py": "of networks with a state, with a cache by hand, and with PyTorch's",
    "utils/search.py": "by hand, and by PyTorch",
    "utils/sensitivity.py": "by hand, and by autograd",
}


def versions(folders: dict[str, dict[str, str]]) -> dict[str, dict[str, str]]:
    """Path within a folder -> folder -> syntax tree, of the modules that several folders have.

    `folders` holds each folder's sources by their path. A folder's own name counts as any other's.
    """
    found = defaultdict(dict)
    for folder, modules in folders.items():
        for path, source in modules.items():
            tree = ast.dump(ast.parse(re.sub(rf"(?<=from ){folder}\b", "FOLDER", source)))
            found[path.removeprefix(f"{folder}/")][folder] = tree
    return {path: trees for path, trees in found.items() if len(trees) > 1}


def test_modules_of_one_name_are_one_module():
    """Whoever knows `dataset/mnist.py` of one folder knows it of all, so none may drift."""
    found = versions({folder: sources(folder) for folder in [*FOLDERS, STUDIES]})
    copies = {path: trees for path, trees in found.items() if path not in OWN}
    assert {p: sorted(trees) for p, trees in copies.items() if len(set(trees.values())) > 1} == {}
    assert len(copies) > 20 and len(copies["dataset/mnist.py"]) == 8
    assert len(copies["start.py"]) == len(FOLDERS) + 1


def test_the_list_of_what_differs_is_no_longer_than_it_must_be():
    found = versions({folder: sources(folder) for folder in FOLDERS})
    assert [path for path in OWN if len(set(found.get(path, {}).values())) < 2] == []


def test_modules_that_drifted_are_found():
    sources = {"One": {"One/a.py": "from One import b"}, "Two": {"Two/a.py": "from Two import b"}}
    assert len(set(versions(sources)["a.py"].values())) == 1
    sources["Two"]["Two/a.py"] += "\nx = 1"
    assert len(set(versions(sources)["a.py"].values())) == 2


TWINS = [(m, m.replace("_Manual", "_Torch")) for m in MANUAL]


@pytest.mark.parametrize(
    ("manual", "native"), [pair for pair in TWINS if (ROOT / pair[1] / "train.py").exists()]
)
def test_twins_have_the_same_data_and_pictures(manual, native):
    """`diff -r MLP_Manual/dataset MLP_Torch/dataset` prints nothing."""
    for part in ("dataset", "utils/plots.py"):
        for path in [p for p in sources(manual) if p.startswith(f"{manual}/{part}")]:
            ours = (ROOT / path).read_text(encoding="utf-8")
            theirs = (ROOT / path.replace(manual, native)).read_text(encoding="utf-8")
            assert ours == theirs, path


def test_the_image_networks_have_the_same_data():
    """`diff -r ResNet/dataset ViT/dataset` prints nothing."""
    ours, theirs = (
        {
            path.removeprefix(f"{name}/"): s
            for path, s in sources(name).items()
            if "/dataset/" in path
        }
        for name in ("ResNet", "ViT")
    )
    assert ours == theirs and len(ours) > 5


# ---- anatomy, and who imports whom ----


@pytest.mark.parametrize("folder", [f for f in MODELS if (ROOT / f / "train.py").exists()])
def test_folder_has_the_anatomy(folder):
    parts = ["README.md", "__init__.py", "model.py", "train.py", "test.py", "dataset", "utils"]
    assert [part for part in parts if not (ROOT / folder / part).exists()] == []


def packages_imported(source: str) -> set[str]:
    """The first parts of all module names that a module imports, or names in a string."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        names |= {name for name, _ in imports(node)}
        if isinstance(node, ast.Constant) and re.fullmatch(r"\w+(\.\w+)+", str(node.value)):
            names.add(str(node.value))
        if isinstance(node, ast.Constant) and "import_module" in source and node.value in FOLDERS:
            names.add(node.value)
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize(
    "source",
    [
        "import CNN_Manual",
        "import os, CNN_Manual.model as m",
        "def f(): from CNN_Manual import x",
        "import importlib; importlib.import_module('CNN_Manual.model')",
        "for f in ('MLP_Manual', 'CNN_Manual'): importlib.import_module(f'{f}.model')",
    ],
)
def test_imports_of_a_folder_are_found(source):
    assert "CNN_Manual" in packages_imported(source)


# compare*.py put twins side by side; speed.py asks every folder how fast it learns on a GPU
SIDE_BY_SIDE = ("common/results/compare", "common/results/speed")


@pytest.mark.parametrize("package", ["common", *FOLDERS])
def test_no_module_imports_a_model_folder_but_its_own(package):
    """Nor a study: these alone may import several folders."""
    others = {*FOLDERS, STUDIES} - {package}
    found = {
        path: sorted(packages_imported(source) & others)
        for path, source in sources(package).items()
        if not path.startswith(SIDE_BY_SIDE)
    }
    assert not {path: names for path, names in found.items() if names}


@pytest.mark.parametrize("study", ["text", "images", "reviews"])
def test_a_study_is_of_a_folder_or_more(study):
    """By the protocol that all share, which says nothing about a network."""
    found = sources(STUDIES)
    assert packages_imported(found[f"{STUDIES}/{study}.py"]) >= {STUDIES, "common"}
    assert packages_imported(found[f"{STUDIES}/{study}.py"]) & set(FOLDERS)
    for path in ("protocol", "memory"):
        assert not packages_imported(found[f"{STUDIES}/{path}.py"]) & set(FOLDERS)


def modules_imported(source: str) -> set[str]:
    """The full names of the modules that a source imports anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and not node.level:
            names |= {node.module, *(f"{node.module}.{item.name}" for item in node.names)}
        elif isinstance(node, ast.Import):
            names |= {item.name for item in node.names}
    return names


def test_a_module_of_common_serves_four_folders():
    """The rule for common/: four folders import it, by themselves or through another module of it,
    and it says nothing of a particular dataset or model."""
    names = {
        path: "common." + Path(path).stem for path in sources("common") if path.count("/") == 1
    }
    by = {name: modules_imported((ROOT / path).read_text()) for path, name in names.items()}
    users = {name: set() for name in by}
    for folder in FOLDERS:
        reached = set().union(*(modules_imported(source) for source in sources(folder).values()))
        while new := set().union(*(by[name] for name in reached & by.keys())) - reached:
            reached |= new
        for name in reached & by.keys():
            users[name].add(folder)
    users.pop("common.__init__")
    assert {name: sorted(found) for name, found in users.items() if len(found) < 4} == {}


def test_common_is_thin():
    lines = {path: len(source.splitlines()) for path, source in sources("common").items()}
    results = {path: n for path, n in lines.items() if path.startswith("common/results/")}
    basement = {path: n for path, n in lines.items() if n and path not in results}
    assert len(basement) <= 16 and sum(basement.values()) <= 2_000, basement
    assert len(results) <= 9 and sum(results.values()) <= 1_000, results


def floors(imported: dict[str, set[str]]) -> dict[str, int]:
    """Module -> the floor it stands on: 1 for what imports none of the others."""
    found: dict[str, int] = {}

    def floor(name: str) -> int:
        if name not in found:
            below = imported[name] & imported.keys() - {name}
            found[name] = 1 + max((floor(other) for other in below), default=0)
        return found[name]

    return {name: floor(name) for name in imported}


def test_common_has_four_floors():
    assert floors({"a": set(), "b": {"a", "os"}, "c": {"a", "b"}}) == {"a": 1, "b": 2, "c": 3}
    paths = [path for path in sources("common") if path.count("/") == 1]
    names = {path.removesuffix(".py").replace("/", "."): path for path in paths}
    found = floors({name: modules_imported((ROOT / p).read_text()) for name, p in names.items()})
    assert max(found.values()) <= 4, sorted(found.items(), key=lambda item: item[1])


def test_lessons_do_not_reach_into_the_room_of_results():
    """What a folder's README shows may be written by its test.py and by its studies alone."""
    found = {
        path.split("/", 1)[1]
        for folder in FOLDERS
        for path, source in sources(folder).items()
        if any(name.startswith("common.results") for name in modules_imported(source))
    }
    assert "test.py" in found
    assert not {path for path in found if "/" in path or path in ("model.py", "train.py")}


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_dataset_offers_is_defined_in_its_folder(folder):
    """Or it is common.data's: whoever looks for it need not leave the folder."""
    module = importlib.import_module(f"{folder}.dataset")
    homes = {
        name: getattr(value, "__module__", None)
        for name, value in vars(module).items()
        if not name.startswith("_") and callable(value)
    }
    own = (
        f"{folder}.dataset",
        "common.data",
        "common.errors",
        "argparse",
        "functools",
        "pathlib",
        "torch",
    )
    assert {n: home for n, home in homes.items() if not str(home).startswith(own)} == {}
    assert sum(home.startswith(f"{folder}.dataset") for home in homes.values()) >= 2


# ---- imports without effects ----

IMPORT_EACH = """
import contextlib, importlib, io, pathlib, sys
import matplotlib.pyplot  # speaks where it is new, while it looks for fonts: not of our doing
sys.dont_write_bytecode = True

def files():
    return set(pathlib.Path.cwd().rglob("*"))

for name in sys.argv[1:]:
    before, output = files(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        module = importlib.import_module(name)
    assert module.__file__.startswith(str(pathlib.Path.cwd())), module.__file__
    if output.getvalue():
        print(name, "prints", repr(output.getvalue()))
    if files() != before:
        print(name, "writes", sorted(path.name for path in files() - before))
"""


def effects_of_importing(root: Path, modules: list[str], cold: bool = False) -> list[str]:
    """What importing the modules below `root`, one after the other, prints or writes there."""
    result = finish(start("-c", IMPORT_EACH, *modules, cwd=root, cold=cold))
    assert (result.code, result.err) == (0, "")
    return result.out.splitlines()


@pytest.mark.long
def test_modules_do_nothing_when_imported(tmp_path):
    """On a copy: a run of ours in the meantime writes into the folders themselves."""
    modules = []
    for package in ("common", *FOLDERS, STUDIES):
        for path, source in sources(package).items():
            copy = tmp_path / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(source, encoding="utf-8")
            modules.append(path.removesuffix(".py").removesuffix("/__init__").replace("/", "."))
    table = "common/metrics.csv"  # which report.py reads
    (tmp_path / table).write_bytes((ROOT / table).read_bytes())
    assert effects_of_importing(tmp_path, modules) == []


@pytest.mark.parametrize("cold", [True, pytest.param(False, marks=pytest.mark.long)])
def test_modules_that_do_something_when_imported_are_found(cold, tmp_path):
    (tmp_path / "quiet.py").write_text("import os\n")
    (tmp_path / "loud.py").write_text("print('hello')\n")
    (tmp_path / "warns.py").write_text("import warnings\nwarnings.warn('old')\n")
    (tmp_path / "writes.py").write_text("open(__file__ + '.txt', 'w').close()\n")
    found = effects_of_importing(tmp_path, ["quiet", "loud", "warns", "writes"], cold)
    assert [line.split()[:2] for line in found] == [
        ["loud", "prints"], ["warns", "prints"], ["writes", "writes"],
    ]  # fmt: skip


# ---- a short read ----

SHORT = [path for name in MODELS for path in sources(name) if path == f"{name}/train.py"]


@pytest.mark.parametrize("path", [*SHORT, *sources("common"), *sources(STUDIES)])
def test_file_is_a_short_read(path):
    lines = len((ROOT / path).read_text(encoding="utf-8").splitlines())
    assert lines <= MAX_LINES.get(path.split("/")[0], MAX_LINES["train.py"])
