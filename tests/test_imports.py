"""The directions between the packages, read from the source (DESIGN: the layout).

Two questions: what does a module name in its own imports, at any depth, and what is loaded with it
when it is imported (`loaded`, through our own modules' top-level imports).
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("transports", "daemon", "ctl", "benchmarks")
MLX = ("mlx", "mlx_lm")
PURE = (*MLX, "zmq", "asyncio", "time", "socket", "random", "threading", "ctl")

# Plain values and plain decisions of `transports`.
VALUES = ("transports.frame", "transports.codecs.layout", "transports.codecs.choice")

# Of daemon.thunderbolt: facts in, verdicts and advice out.
FACTS = (
    "facts", "profiler", "verbs", "interfaces", "system", "machine", "hardware", "verdicts",
    "cables", "matrix", "offer", "fixes", "recovery", "failures", "redact", "report",
)  # fmt: skip

# Modules (and all below them) with what they must not import, and the exceptions.
FORBIDDEN: list[tuple[str, tuple[str, ...], tuple[str, ...]]] = [
    ("transports", ("daemon", "ctl", "benchmarks", *MLX), ()),
    ("daemon", ("ctl", "benchmarks"), ()),
    ("ctl", ("benchmarks", "numpy", *MLX), ()),
    ("daemon.engine", ("zmq", "asyncio", "socket", "transports"), ()),
    ("daemon.storage", (*MLX, "zmq", "asyncio", "socket", "threading", "transports"), ()),
    ("daemon.scheduler", (*PURE, "transports"), VALUES),
    ("daemon.cluster", (*PURE, "transports"), VALUES),
    ("daemon.ring.junction", (*PURE, "transports"), ("transports.frame",)),
    ("daemon.stage.ledger", (*PURE, "transports"), ("transports.frame",)),
    ("daemon.stage.fence", (*PURE, "transports"), ("transports.frame",)),
    ("daemon.draft.drafter", ("zmq", "asyncio", "time", "socket", "threading", "transports"), ()),
    ("daemon.messages", (*PURE, "transports"), VALUES),
    *((f"daemon.thunderbolt.{name}", (*PURE, "transports"), ()) for name in FACTS),
]
# Who may name MLX, or a module of the engine that loads it.
MLX_USERS = (
    "daemon.engine",
    "daemon.stage",
    "daemon.draft",
    "daemon.rdma",
    "daemon.embedded",
    "daemon.coordinator.tokenizer",  # mlx-lm's tokenizers, when a model is loaded; no arrays
    "benchmarks",
)
# What must not have MLX loaded with it: it has to answer while MLX hangs or is dead.
WITHOUT_MLX = (
    "transports",
    "ctl",
    "daemon.config",
    "daemon.logs",
    "daemon.service",
    "daemon.storage",
    "daemon.scheduler",
    "daemon.cluster",
    "daemon.supervisor",
    "daemon.thunderbolt",
    "daemon.control",
    "daemon.ring",
    "daemon.coordinator",
    "daemon.__main__",
)
PICKLERS = ("pickle", "dill", "cloudpickle", "marshal", "shelve")


def below(module: str, names: tuple[str, ...]) -> bool:
    """Whether `module` is one of `names` or inside one."""
    return any(module == name or module.startswith(f"{name}.") for name in names)


@cache
def modules() -> dict[str, Path]:
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text(encoding="utf-8"))


def targets(module: str, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
        return
    base = node.module or ""
    if node.level:
        package = module.split(".")
        if modules()[module].name != "__init__.py":
            package.pop()
        base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
    for alias in node.names:
        inner = f"{base}.{alias.name}"
        yield inner if inner in modules() else base


@cache
def named(module: str) -> frozenset[str]:
    """Every module in any import statement of `module`."""
    nodes = (n for n in ast.walk(tree(module)) if isinstance(n, ast.Import | ast.ImportFrom))
    return frozenset(name for node in nodes for name in targets(module, node))


def top_level(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Import statements that run when the module is imported."""
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
            yield from top_level([*node.body, *node.orelse])
        elif isinstance(node, ast.Try):
            handlers = [statement for h in node.handlers for statement in h.body]
            yield from top_level([*node.body, *handlers, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With | ast.ClassDef):
            yield from top_level(node.body)


@cache
def loaded(module: str) -> dict[str, str]:
    """What importing `module` loads, each with the module of ours that names it."""
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        here = waiting.pop()
        parents = here.split(".")
        names = {".".join(parents[:i]) for i in range(1, len(parents))}  # their __init__ runs too
        for node in top_level(tree(here).body):
            names.update(targets(here, node))
        for name in names - found.keys():
            found[name] = here
            if name in modules():
                waiting.append(name)
    return found


def mlx_path(module: str) -> str:
    """How `module` comes to load MLX, or an empty text."""
    found = loaded(module)
    culprit = next((name for name in sorted(found) if below(name, MLX)), "")
    return f"{module} loads {culprit} through {found[culprit]}" if culprit else ""


def test_the_rules_see_our_modules() -> None:
    assert {"daemon.config.load", "transports.frame", "daemon.scheduler"} <= modules().keys()
    assert "daemon.config.values" in named("daemon.config.load")
    assert "yaml" in loaded("daemon.config")


@pytest.mark.parametrize(
    ("package", "names", "exceptions"), FORBIDDEN, ids=[rule[0] for rule in FORBIDDEN]
)
def test_direction(package: str, names: tuple[str, ...], exceptions: tuple[str, ...]) -> None:
    broken = [
        f"{module} imports {name}"
        for module in modules()
        if below(module, (package,))
        for name in sorted(named(module))
        if below(name, names) and not below(name, exceptions)
    ]
    assert not broken


def test_only_stages_and_training_name_mlx() -> None:
    broken = [
        f"{module} imports {name}"
        for module in modules()
        if not below(module, MLX_USERS)
        for name in sorted(named(module))
        if below(name, MLX) or (below(name, ("daemon.engine",)) and mlx_path(name))
    ]
    assert not broken


def test_what_must_answer_does_not_load_mlx() -> None:
    found = [mlx_path(module) for module in modules() if below(module, WITHOUT_MLX)]
    assert not [path for path in found if path]


def test_daemon_and_ctl_start_empty() -> None:
    assert [p for p in ("daemon", "ctl") if (ROOT / p / "__init__.py").read_text().strip()] == []


def test_nothing_is_unpickled_or_evaluated() -> None:
    broken = []
    for module in modules():
        broken += [f"{module} imports {n}" for n in named(module) if below(n, PICKLERS)]
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                if node.func.id in ("eval", "exec"):
                    broken.append(f"{module}:{node.lineno} calls {node.func.id}")
            elif isinstance(node, ast.Attribute) and node.attr.endswith("_pyobj"):
                broken.append(f"{module}:{node.lineno} uses {node.attr}")
    assert not broken


def test_no_socket_listens_everywhere() -> None:
    broken = []
    for module in modules():
        prose = {
            id(node.value)  # docstrings may speak of it
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree(module)):
            if isinstance(node, ast.Constant) and "tcp://*" in str(node.value):
                broken += [f"{module}:{node.lineno}"] if id(node) not in prose else []
    assert not broken


def test_exceptions_are_caught_by_name() -> None:
    """At most three nets for everything, at the top of a task, each with its reason beside it."""
    nets, silent = [], []
    for module, path in modules().items():
        lines = path.read_text(encoding="utf-8").splitlines()
        for node in ast.walk(tree(module)):
            if not isinstance(node, ast.ExceptHandler) or ast.unparse(node.body[-1]) == "raise":
                continue  # one that cleans up and passes everything on catches nothing
            caught = ast.unparse(node.type) if node.type else "everything"
            if caught in ("Exception", "BaseException", "everything"):
                nets.append(f"{module}:{node.lineno}")
                around = lines[node.lineno - 2 : node.lineno + 1]
                if not any("#" in line for line in around):
                    silent.append(f"{module}:{node.lineno}")
    assert len(nets) <= 3, nets
    assert not silent
