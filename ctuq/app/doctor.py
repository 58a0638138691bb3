"""Is this installation fit for use? Each check is a function that returns what it found."""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ctuq.app.options import Doctor
from ctuq.app.terminal import give, say
from ctuq.errors import CtuqError
from ctuq.versions import version_of

OK, WARN, FAIL = "ok", "warn", "fail"
_LIBRARIES = ("torch", "numpy", "scipy", "astra-toolbox", "odl", "h5py", "matplotlib", "scikit-image", "tyro")
_MOST_MISMATCH = 1e-6
_CHILD_SECONDS = 120
_LITTLE_MEMORY, _LITTLE_DISK = 6 * 2**30, 2**30
_ASTRA_NEEDS = ("libcudart.so.12", "libcufft.so.11")
"""Of CUDA 12, whichever CUDA torch has."""
_OPENMP = ("libgomp", "libiomp5", "libomp")

# In a child process, because ASTRA's CUDA can end the interpreter where there is no usable GPU.
_ASTRA_CUDA = """
import astra, numpy, sys
if not astra.use_cuda():
    print("none"); sys.exit()
volume = astra.create_vol_geom(8, 8, 2)
rays = astra.create_proj_geom("parallel3d", 1.0, 1.0, 2, 8, numpy.array([0.0]))
handle, sums = astra.create_sino3d_gpu(numpy.ones((2, 8, 8), numpy.float32), rays, volume)
print("right" if numpy.allclose(sums, 8.0, rtol=1e-3) else "wrong")
"""


@dataclass(frozen=True)
class Check:
    """What one check found: its name, "ok", "warn" or "fail", and a sentence."""

    name: str
    status: str
    text: str


def examine() -> list[Check]:
    """Run every check; one that breaks is itself a failure."""
    return [_guarded(check) for check in CHECKS]


def _python_version() -> Check:
    """Whether this Python is one of those tested."""
    found = ".".join(str(part) for part in sys.version_info[:3])
    fits = (3, 11) <= sys.version_info[:2] < (3, 15)
    return Check("Python", OK if fits else WARN, f"{found}, {sys.platform}" + ("" if fits else "; 3.11 to 3.14 are tested"))


def library_versions() -> Check:
    """Whether every library is there, and which version."""
    found = {name: version_of(name) for name in _LIBRARIES}
    absent = [name for name, number in found.items() if number is None]
    found["ctuq"] = version_of("ctuq") or "from source"
    text = ", ".join(f"{name} {number}" for name, number in found.items() if number)
    if absent:
        return Check("Libraries", FAIL, f"{', '.join(absent)} not installed; run pip install ctuq ({text})")
    return Check("Libraries", OK, text)


def _threads() -> Check:
    """How many processors torch uses."""
    import torch

    return Check("Threads", OK, f"torch uses {torch.get_num_threads()} of {os.cpu_count()} processors")


def _gpu() -> Check:
    """Whether PyTorch finds a GPU."""
    import torch

    if not torch.cuda.is_available():
        return Check("GPU", OK, "none found by PyTorch; everything runs on the CPU")
    memory = torch.cuda.get_device_properties(0).total_memory / 2**30
    return Check("GPU", OK, f"{torch.cuda.get_device_name(0)}, {memory:.0f} GiB")


def gpu_libraries() -> Check:
    """Small sums by each of the libraries that PyTorch takes on a GPU, against the host's."""
    import torch

    name = "GPU libraries"
    if not torch.cuda.is_available():
        return Check(name, OK, "not tried: no GPU")
    rng = torch.Generator().manual_seed(0)
    x, y = (torch.randn(1, 1, 16, 16, generator=rng) for _ in range(2))
    eye = torch.eye(16)
    sums: dict[str, Callable[..., torch.Tensor]] = {
        "cuBLAS": lambda x, y, e: x[0, 0] @ y[0, 0],
        "cuDNN": lambda x, y, e: torch.nn.functional.conv2d(x, y[..., :3, :3]),
        "cuFFT": lambda x, y, e: torch.fft.rfft2(x).abs(),
        "cuSOLVER": lambda x, y, e: torch.linalg.cholesky(x[0, 0] @ x[0, 0].T + 16 * e),
        "cuSPARSE": lambda x, y, e: torch.relu(x[0, 0]).to_sparse_csr() @ y[0, 0],
    }
    wrong = []
    for library, work in sums.items():
        host = work(x, y, eye)
        try:
            found = work(*(a.to("cuda") for a in (x, y, eye))).cpu()
        except RuntimeError as error:
            wrong.append(f"{library}: {' '.join(str(error).split())[:80]}")
            continue
        if not torch.allclose(found, host, rtol=1e-2, atol=1e-2):
            wrong.append(f"{library}: wrong numbers")
    if wrong:
        return Check(name, FAIL, f"{'; '.join(wrong)}; install the torch that fits the driver, or use --device cpu")
    return Check(name, OK, f"{', '.join(sums)} agree with the host")


def astra_cuda() -> Check:
    """Project ones by ASTRA's CUDA in a child process and compare with the known sum."""
    import torch

    try:
        child = subprocess.run(
            [sys.executable, "-c", _ASTRA_CUDA], capture_output=True, text=True, timeout=_CHILD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Check("ASTRA's CUDA", WARN, f"gave no answer in {_CHILD_SECONDS} s; use the matrix backend")
    answer = child.stdout.strip().splitlines()[-1:] or [""]
    if child.returncode == 0 and answer == ["right"]:
        return Check("ASTRA's CUDA", OK, "works")
    if child.returncode == 0 and answer == ["none"]:
        status = WARN if torch.cuda.is_available() else OK
        return Check("ASTRA's CUDA", status, "no GPU found by ASTRA; the matrix backend is used")
    why = "gave wrong numbers" if child.returncode == 0 else f"ended its process (exit code {child.returncode})"
    absent = [library for library in _ASTRA_NEEDS if library in child.stderr]
    if absent:
        why += f", as {absent[0]} is absent: pip install nvidia-cuda-runtime-cu12 nvidia-cufft-cu12"
    return Check("ASTRA's CUDA", WARN, f"{why}; use the matrix backend")


def exact_adjoint() -> Check:
    """Build a small ray transform by ASTRA and compare <Ax, y> with <x, A'y>."""
    import torch

    from ctuq.tomo import FanBeam, adjoint_mismatch, default_grid, radians, ray_transform

    geometry = FanBeam(
        angles=radians(range(0, 350, 50)),
        columns=48,
        pixel=1.0,
        source_to_axis=200.0,
        source_to_detector=300.0,
        axis_offset=0.3,
    )
    transform = ray_transform(default_grid(geometry, 32), geometry)
    mismatch = adjoint_mismatch(transform, rng=torch.Generator().manual_seed(0))
    good = mismatch <= _MOST_MISMATCH
    text = f"|<Ax, y> - <x, A'y>| is {mismatch:.1e} of |Ax| |y|"
    return Check("Adjoint of the ray transform", OK if good else FAIL, text + ("" if good else f", above {_MOST_MISMATCH}"))


def known_clashes() -> Check:
    """Pairs of libraries that are known to break one another."""
    clashes = []
    pytest, tomosipo = version_of("pytest"), version_of("tomosipo")
    if version_of("odl") and pytest and _numbers(pytest) >= (9, 1):
        clashes.append(f"odl's pytest plugin stops pytest {pytest}: run pytest with -p no:odl_plugins")
    if tomosipo and _numbers(tomosipo) < (0, 7) and _numbers(version_of("numpy") or "0") >= (2,):
        clashes.append(f"tomosipo {tomosipo} does not work with numpy 2: install cicwi/tomosipo 0.7 or later")
    return Check("Known clashes", WARN if clashes else OK, "; ".join(clashes) or "none")


def openmp_runtimes() -> Check:
    """Several OpenMP runtimes in one process fight for the processors and can hang."""
    import astra  # noqa: F401, loads the runtimes in question, as torch does
    import torch  # noqa: F401

    try:
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    except OSError:
        return Check("OpenMP", OK, "not checked on this system")
    files = {line.split()[-1] for line in maps.splitlines() if Path(line.split()[-1]).name.startswith(_OPENMP)}
    names = ", ".join(sorted(Path(file).name for file in files)) or "none"
    if len({Path(file).name.split(".")[0].split("-")[0] for file in files}) > 1:
        return Check("OpenMP", WARN, f"several runtimes are loaded ({names}); if runs hang, set OMP_NUM_THREADS=1")
    return Check("OpenMP", OK, names)


def cache_folder() -> Check:
    """Whether built ray transforms can be kept between runs."""
    from ctuq.tomo.rays.cache import default_directory

    folder = default_directory()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        return Check("Cache", WARN, f"{folder} cannot be written ({error.strerror}); set XDG_CACHE_HOME to a folder that can")
    return Check("Cache", OK, str(folder))


def _memory() -> Check:
    """Whether the demo's memory is available."""
    from ctuq.linops.memory import available_memory

    left = available_memory()
    if left is None:
        return Check("Memory", OK, "not told by this system")
    enough = left >= _LITTLE_MEMORY
    text = f"{left / 2**30:.1f} GiB available" + ("" if enough else "; the demo wants 6 GiB, take a smaller --size")
    return Check("Memory", OK if enough else WARN, text)


def _disk() -> Check:
    """Whether there is room for results in the current folder."""
    left = shutil.disk_usage(Path.cwd()).free
    enough = left >= _LITTLE_DISK
    return Check("Disk", OK if enough else WARN, f"{left / 2**30:.1f} GiB free here")


CHECKS: tuple[Callable[[], Check], ...] = (
    _python_version,
    library_versions,
    _threads,
    _gpu,
    gpu_libraries,
    astra_cuda,
    exact_adjoint,
    known_clashes,
    openmp_runtimes,
    cache_folder,
    _memory,
    _disk,
)


def _guarded(check: Callable[[], Check]) -> Check:
    try:
        return check()
    except (CtuqError, ImportError, OSError, RuntimeError, ValueError) as error:
        return Check(check.__name__.replace("_", " "), FAIL, f"{type(error).__name__}: {' '.join(str(error).split())}")


def _numbers(text: str) -> tuple[int, ...]:
    """Leading numbers of a version, for comparison."""
    parts = []
    for part in text.split("."):
        if not part.isdigit():
            break
        parts.append(int(part))
    return tuple(parts)


def tell(_: Doctor) -> int:
    """Print every check; exit code 2 if one failed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        checks = examine()
    usable = all(check.status != FAIL for check in checks)
    give(checks=checks, usable=usable)
    for check in checks:
        say(f"[{check.status:^4}] {check.name}: {check.text}")
    say("ctuq can be used here." if usable else "ctuq cannot be used here until what failed is mended.")
    return 0 if usable else 2
