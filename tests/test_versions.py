from importlib.metadata import version

from ctuq.versions import version_of, versions_of


def test_versions_are_those_that_are_installed_and_absence_is_told():
    assert version_of("torch") == version("torch")
    assert version_of("no-such-library") is None
    assert versions_of("numpy", "no-such-library") == {"numpy": version("numpy"), "no-such-library": "not installed"}
