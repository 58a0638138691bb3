"""What control groups leave of the memory: containers, batch jobs and those around them, of both versions."""

import pytest

from ctuq import memory


@pytest.fixture
def groups(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_GROUPS", tmp_path / "fs")
    monkeypatch.setattr(memory, "_GROUP_OF", tmp_path / "own")
    (tmp_path / "own").write_text("")

    def make(path, **files):
        folder = tmp_path / "fs" / path
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    return make


def own(tmp_path, text):
    (tmp_path / "own").write_text(text)


def test_without_groups_or_limits_nothing_is_known(groups):
    assert memory._container() is None
    groups("", memory__max="max", memory__current="5")
    assert memory._container() is None


def test_a_cache_of_files_gives_way(groups):
    groups("", memory__max="1000", memory__current="900", memory__stat="anon 300\ninactive_file 550\nactive_file 50")
    assert memory._container() == 650


def test_a_group_without_statistics_leaves_what_is_not_used(groups):
    groups("", memory__max="1000", memory__current="900")
    assert memory._container() == 100
    groups("", memory__max="1000", memory__current="1200")
    assert memory._container() == 0


def test_a_job_has_the_least_of_its_own_group_and_those_around_it(groups, tmp_path):
    own(tmp_path, "0::/slurm/job_7/step_0\n")
    groups("slurm", memory__max="5000", memory__current="1000")
    groups("slurm/job_7", memory__max="2000", memory__current="500")
    groups("slurm/job_7/step_0", memory__max="max", memory__current="100")
    assert memory._container() == 1500
    groups("slurm", memory__max="1200", memory__current="1000")
    assert memory._container() == 200


def test_the_first_version_is_read_too(groups, tmp_path):
    own(tmp_path, "4:memory:/job\n3:cpu,cpuacct:/job\n0::/\n")
    stat = "cache 400\ntotal_inactive_file 300"
    groups("memory/job", memory__limit_in_bytes="2000", memory__usage_in_bytes="1500", memory__stat=stat)
    groups("memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="7")
    assert memory._container() == 800


def test_a_path_of_the_host_is_the_root_inside_of_a_container(groups, tmp_path):
    own(tmp_path, "0::/docker/abc\n")
    groups("", memory__max="1000", memory__current="400")
    assert memory._container() == 600
