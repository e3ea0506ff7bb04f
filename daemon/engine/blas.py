"""Which BLAS a stage should multiply with. No MLX import: the choice is made before the stage
starts.

MLX's wheel for Linux brings the reference BLAS, which is 10-50 times slower than an optimised one.
MLX calls three functions of it (cblas_sgemm, cblas_dgemm, cblas_cgemm), so a library put in front
with LD_PRELOAD takes its place: the system's OpenBLAS, or the one inside numpy, whose functions
have other names and 64-bit integers and so need a small shim, which the C compiler makes at first
use.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

SYSTEM_FOLDERS = tuple(
    Path(folder)
    for machine in (platform.machine(),)
    for folder in (
        f"/usr/lib/{machine}-linux-gnu",
        f"/usr/lib/{machine}-linux-gnu/openblas-pthread",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
    )
)
_SHIM_NAME = "libshardbus_blas"
_THROUGH_SHIM = "openblas (numpy's, through shim)"
_COMPILE_SECONDS = 60

_REAL = """
extern void scipy_cblas_{p}gemm64_(int, int, int, long, long, long, {t}, const {t}*, long,
                                   const {t}*, long, {t}, {t}*, long);
void cblas_{p}gemm(int order, int ta, int tb, int m, int n, int k, {t} alpha, const {t} *a, int lda,
                   const {t} *b, int ldb, {t} beta, {t} *c, int ldc) {{
    scipy_cblas_{p}gemm64_(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}}
"""
_COMPLEX = """
extern void scipy_cblas_cgemm64_(int, int, int, long, long, long, const void*, const void*, long,
                                 const void*, long, const void*, void*, long);
void cblas_cgemm(int order, int ta, int tb, int m, int n, int k, const void *alpha, const void *a,
                 int lda, const void *b, int ldb, const void *beta, void *c, int ldc) {
    scipy_cblas_cgemm64_(order, ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
"""
SHIM_SOURCE = _REAL.format(p="s", t="float") + _REAL.format(p="d", t="double") + _COMPLEX


@dataclass(frozen=True, slots=True)
class Blas:
    """`preload` is what a stage has to be started with; `reason` says why nothing better was
    found.
    """

    name: str
    preload: Path | None = None
    reason: str | None = None


def find_blas(
    cache_dir: Path, system_folders: tuple[Path, ...] = SYSTEM_FOLDERS, cc: str | None = None
) -> Blas:
    """The best BLAS to be had here. Never raises: "reference" with a reason is always an answer.

    `cache_dir` keeps the shim between starts; two processes may call this at once. `cc` is the
    compiler to use.
    """
    if sys.platform == "darwin":
        return Blas("accelerate")
    if sys.platform != "linux":
        return Blas("reference", reason=f"nothing is known about {sys.platform}")
    for folder in system_folders:
        library = folder / "libopenblas.so.0"
        if library.exists():
            return Blas(_system_name(library), library)
    bundled = _bundled_library()
    if bundled is None:
        return Blas("reference", reason="no system libopenblas.so.0, and numpy brings none")
    compiler = cc or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        return Blas("reference", reason="no system libopenblas.so.0, and no C compiler for a shim")
    return _shim(cache_dir, bundled, compiler)


def environment(blas: Blas, threads: int = 1) -> dict[str, str]:
    """Variables to start a stage process with, over those it inherits."""
    # MLX runs one operation after another on the CPU; more threads than cores only fight over them.
    variables = {"OPENBLAS_NUM_THREADS": str(threads)}
    if blas.preload is not None:
        inherited = os.environ.get("LD_PRELOAD", "")
        others = [p for p in inherited.replace(":", " ").split() if not _is_blas(Path(p))]
        variables["LD_PRELOAD"] = " ".join([str(blas.preload), *others])
    return variables


def running_blas() -> str:
    """What MLX multiplies with in this process, by the libraries that are really loaded."""
    if sys.platform == "darwin":
        return "accelerate"
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return "unknown"
    loaded = {Path(line.split(maxsplit=5)[5]) for line in lines if line.count("/")}
    if any(p.name.startswith(_SHIM_NAME) for p in loaded):
        return _THROUGH_SHIM
    for path in sorted(loaded):
        # numpy's own copy is there whenever numpy is imported, but MLX does not call it.
        if path.name.startswith("libopenblas") and path.parent.name != "numpy.libs":
            return _system_name(path)
    return "reference"


def _is_blas(library: Path) -> bool:
    return library.name.startswith((_SHIM_NAME, "libopenblas"))


def _system_name(library: Path) -> str:
    found = re.search(r"(\d+\.\d+(?:\.\d+)?)\.so", library.resolve().name)
    return f"openblas {found.group(1)} (system)" if found else "openblas (system)"


def _bundled_library() -> Path | None:
    """The OpenBLAS inside numpy's wheel, found without importing numpy."""
    spec = find_spec("numpy")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent.parent / "numpy.libs"
    return next(iter(sorted(folder.glob("libscipy_openblas64_*.so"))), None)


def _shim(cache_dir: Path, bundled: Path, compiler: str) -> Blas:
    # numpy's file has its content's hash in its name; another numpy therefore gets another shim.
    key = hashlib.sha256(f"{bundled}\n{SHIM_SOURCE}".encode()).hexdigest()[:16]
    target = cache_dir / f"{_SHIM_NAME}-{key}.so"
    try:
        if not target.exists():
            cache_dir.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache_dir) as scratch:
                built = Path(scratch) / target.name
                _compile(compiler, bundled, built)
                built.replace(target)  # atomic: whoever looks sees all of it or nothing
        _try(target)
    except (OSError, subprocess.SubprocessError) as error:
        return Blas("reference", reason=f"no shim for numpy's OpenBLAS: {_cause(error)}")
    return Blas(_THROUGH_SHIM, target)


def _cause(error: OSError | subprocess.SubprocessError) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        said = str(error.stderr).strip().splitlines()
        return f"{error.cmd[0]}: {said[-1] if said else f'ended with {error.returncode}'}"
    return str(error)


def _compile(compiler: str, bundled: Path, target: Path) -> None:
    source = target.with_suffix(".c")
    source.write_text(SHIM_SOURCE)
    options = ["-shared", "-fPIC", "-O2", "-o", str(target), str(source)]
    linking = [f"-L{bundled.parent}", f"-l:{bundled.name}", f"-Wl,-rpath,{bundled.parent}"]
    subprocess.run(
        [compiler, *options, *linking],
        check=True,
        capture_output=True,
        text=True,
        timeout=_COMPILE_SECONDS,
    )


def _try(library: Path) -> None:
    """Load it in a process of its own: one that cannot be loaded would keep every stage from
    starting well.
    """
    code = f"import ctypes; ctypes.CDLL({str(library)!r}).cblas_sgemm"
    subprocess.run(
        [sys.executable, "-S", "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=_COMPILE_SECONDS,
    )
