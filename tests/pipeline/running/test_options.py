"""Options of images and of volumes are refused by the same rules and in the same words."""

import pytest

from ctuq.errors import InputError
from ctuq.pipeline.running.options import ReconstructOptions
from ctuq.pipeline.running.volume_options import VolumeOptions


@pytest.mark.parametrize("kind", [ReconstructOptions, VolumeOptions])
@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("method", "magic", "There is no method.*'magic'; choose one of dip"),
        ("size", 20.5, "size takes a whole number, not 20.5"),
        ("size", 1, "size must be . to 16384, got 1"),
        ("size", 16385, "got 16385"),
        ("samples", 2.5, "samples takes a whole number"),
        ("samples", -1, "samples must be 0 to 100000, got -1"),
        ("calibration_views", 1.5, "calibration_views takes a whole number"),
        ("threads", 4097, "threads must be . to 4096, got 4097"),
        ("seed", 2**63, "seed must be 0 to 9223372036854775807"),
        ("seed", 0.5, "seed takes a whole number"),
        ("calibrate", "no", "calibrate takes True or False, not 'no'"),
        ("field", -3.0, "positive number of mm"),
        ("field", "everything", "'everything'"),
    ],
)
def test_what_is_no_option_is_refused_with_its_name_and_value(kind, name, value, told):
    with pytest.raises(InputError, match=told):
        kind(**{name: value})


@pytest.mark.parametrize("kind", [ReconstructOptions, VolumeOptions])
@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 8), ("size", 16384), ("seed", 2**63 - 1), ("threads", None), ("samples", 0), ("field", "common")],
)
def test_the_ends_of_the_limits_and_what_is_left_open_are_taken(kind, name, value):
    assert getattr(kind(**{name: value}), name) == value


@pytest.mark.parametrize("iterations", [0, 100_001, 3.5])
def test_iterations_of_a_volume_are_a_whole_number(iterations):
    with pytest.raises(InputError, match="iterations"):
        VolumeOptions(iterations=iterations)


@pytest.mark.parametrize("kind", [ReconstructOptions, VolumeOptions])
def test_methods_without_iterations_refuse_them(kind):
    for method in ("sirt", "cgls", "tv"):
        assert kind(method=method, iterations=7).iterations == 7
    with pytest.raises(InputError, match="takes no iterations"):
        kind(method="fdk" if kind is VolumeOptions else "fbp", iterations=7)
    with pytest.raises(InputError, match="DIPOptions"):
        kind(method="dip", iterations=7)
