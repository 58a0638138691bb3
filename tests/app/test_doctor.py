import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ctuq.app import cli, doctor
from ctuq.app.doctor import FAIL, OK, WARN, Check
from ctuq.tomo import ParallelBeam, VolumeGrid
from ctuq.tomo.rays.cache import cached_matrix, default_directory
from ctuq.tomo.rays.entries import build_matrix


def test_this_installation_is_usable_and_every_check_speaks(capsys):
    assert cli.main(["doctor"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(doctor.CHECKS) + 1
    assert all(line.startswith(("[ ok ] ", "[warn] ")) for line in lines[:-1])
    for name in ("Python", "torch", "ASTRA's CUDA", "Adjoint", "Cache", "Memory", "Disk"):
        assert any(name in line for line in lines)


def test_one_failure_makes_it_unusable(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "CHECKS", (lambda: Check("a", OK, ""), lambda: Check("b", FAIL, "broken")))
    assert cli.main(["doctor"]) == 2
    assert "[fail] b: broken" in capsys.readouterr().out


def test_a_check_that_breaks_is_a_failure_not_a_crash(monkeypatch):
    def library_versions():
        raise ImportError("libfoo.so is missing")

    monkeypatch.setattr(doctor, "CHECKS", (library_versions,))
    assert doctor.examine() == [Check("library versions", FAIL, "ImportError: libfoo.so is missing")]


@pytest.mark.parametrize(
    ("code", "status", "text"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGFPE)", WARN, "ended its process"),
        ("print('wrong')", WARN, "wrong numbers"),
        ("print('right')", OK, "works"),
        ("print('none')", OK, "no GPU found by ASTRA"),
    ],
)
def test_astra_is_judged_by_what_its_child_does(monkeypatch, code, status, text):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(doctor, "_ASTRA_CUDA", code)
    check = doctor.astra_cuda()
    assert check.status == status
    assert text in check.text


def test_a_library_that_astra_misses_is_named_with_what_brings_it(monkeypatch):
    code = "import sys; sys.exit('ImportError: libcufft.so.11: cannot open shared object file')"
    monkeypatch.setattr(doctor, "_ASTRA_CUDA", code)
    check = doctor.astra_cuda()
    assert check.status == WARN and "libcufft.so.11 is absent: pip install nvidia-cuda-runtime-cu12" in check.text


def test_each_library_of_a_gpu_is_compared_with_the_host(gpu, monkeypatch):
    assert "cuFFT, cuSOLVER, cuSPARSE agree with the host" in doctor.gpu_libraries().text
    rfft2 = torch.fft.rfft2
    monkeypatch.setattr(torch.fft, "rfft2", lambda x: 2 * rfft2(x) if x.is_cuda else rfft2(x))
    check = doctor.gpu_libraries()
    assert check.status == FAIL and check.text.startswith("cuFFT: wrong numbers; ")


def test_a_child_that_hangs_is_a_warning(monkeypatch):
    monkeypatch.setattr(doctor, "_ASTRA_CUDA", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_CHILD_SECONDS", 0.5)
    assert doctor.astra_cuda().status == WARN


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"odl": "1.0.0", "pytest": "9.2.0"}, "-p no:odl_plugins"),
        ({"tomosipo": "0.6.0", "numpy": "2.4.6"}, "tomosipo 0.6.0 does not work with numpy 2"),
        ({"odl": "1.0.0", "pytest": "9.0.2", "tomosipo": "0.7.0", "numpy": "2.4.6"}, "none"),
        ({"pytest": "9.2.0"}, "none"),
    ],
)
def test_known_clashes_are_named_by_version(monkeypatch, versions, said):
    monkeypatch.setattr(doctor, "version_of", versions.get)
    check = doctor.known_clashes()
    assert said in check.text
    assert check.status == (OK if said == "none" else WARN)


def test_an_adjoint_that_is_off_is_a_failure(monkeypatch):
    monkeypatch.setattr("ctuq.tomo.adjoint_mismatch", lambda transform, rng: 1e-3)
    check = doctor.exact_adjoint()
    assert check.status == FAIL
    assert "1.0e-03" in check.text


def test_a_missing_library_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "version_of", lambda name: None if name == "odl" else "1.0")
    check = doctor.library_versions()
    assert check.status == FAIL
    assert check.text.startswith("odl not installed")


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    check = doctor.cache_folder()
    assert check.status == WARN
    assert "XDG_CACHE_HOME" in check.text


def test_a_user_without_a_home_keeps_nothing_and_is_told(monkeypatch):
    """As in a container that runs as a number that no user has."""

    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("pathlib.Path.home", no_home)
    check = doctor.cache_folder()
    assert check.status == WARN and "XDG_CACHE_HOME" in check.text
    grid, geometry = VolumeGrid((8, 8), 1.0), ParallelBeam(angles=[0.0, 1.0], columns=12, pixel=1.0)
    assert build_matrix(grid, geometry).sum() == cached_matrix(grid, geometry, build_matrix, default_directory()).sum()


@pytest.mark.parametrize(
    ("names", "status"),
    [
        (["libgomp.so.1", "libgomp-a34b3233.so.1"], OK),
        (["libgomp.so.1", "libiomp5.so"], WARN),
        ([], OK),
    ],
)
def test_only_different_openmp_runtimes_are_a_clash(monkeypatch, names, status):
    maps = "".join(f"7f00-7f01 r-xp 0 08:01 1 /lib/{name}\n" for name in ["libc.so.6", *names])
    monkeypatch.setattr(Path, "read_text", lambda self, encoding=None: maps)
    assert doctor.openmp_runtimes().status == status


def test_the_check_of_astra_does_not_run_in_this_process(monkeypatch):
    seen = []

    def run(words, **_):
        seen.append(words)
        return subprocess.CompletedProcess(words, 0, "right\n", "")

    monkeypatch.setattr(doctor.subprocess, "run", run)
    assert doctor.astra_cuda().status == OK
    assert seen[0][0] == sys.executable
