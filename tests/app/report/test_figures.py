from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib.image import AxesImage

from ctuq.app.png import drawn
from ctuq.app.report import figures
from ctuq.app.report.catalogue import PICTURES, pictures_of
from ctuq.app.report.figures import grey_window
from ctuq.uncertainty.results.contents import Systematic


def images_of(figure):
    return [image for axes in figure.axes for image in axes.get_children() if isinstance(image, AxesImage)]


def test_a_full_result_gets_every_picture_and_a_bare_one_only_what_it_has(result, bare):
    assert pictures_of(result) == PICTURES
    assert [picture.name for picture in pictures_of(bare)] == ["reconstructions", "sinogram", "geometry"]


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.name)
def test_every_axis_is_labelled_with_its_unit(result, picture):
    figure = picture.draw(result)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    outer_x = [axes for axes in panels if axes.get_subplotspec().is_last_row()]
    outer_y = [axes for axes in panels if axes.get_subplotspec().is_first_col()]
    assert outer_x and all(axes.get_xlabel() for axes in outer_x)
    assert outer_y and all(axes.get_ylabel() for axes in outer_y)
    if picture.name not in ("history", "calibration"):
        assert all("(mm)" in axes.get_xlabel() for axes in outer_x)
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert len(bars) >= bool(images_of(figure))
    assert all("1/mm" in bar.get_ylabel() or "no unit" in bar.get_ylabel() for bar in bars)


def test_all_reconstructions_share_one_grey_window(result):
    images = images_of(figures.draw_reconstructions(result))
    assert len(images) == 4
    assert {image.get_clim() for image in images} == {grey_window(result)}


def test_the_grey_window_ignores_outliers_and_survives_a_constant_image(result, bare):
    low, high = grey_window(result)
    spiked = result.mean.copy()
    spiked[0, 0] = 1e3
    wild = figures.grey_window(type(result)(mean=spiked, scan=result.scan, grid=result.grid, method="fbp"))
    assert wild[1] < 2 * high
    flat = type(result)(mean=np.ones_like(result.mean), scan=bare.scan, grid=result.grid, method="fbp")
    low, high = grey_window(flat)
    assert low < 1 < high


def test_error_and_std_share_one_scale(result):
    assert len({image.get_clim() for image in images_of(figures.draw_error(result))}) == 1


def test_images_lie_in_mm_with_row_0_at_the_top(result):
    (image,) = images_of(figures.draw_std(result))
    assert tuple(image.get_extent()) == result.grid.extent
    assert image.origin == "upper"


def test_a_style_of_the_users_own_turns_no_picture(result):
    """Rows of astronomers' pictures begin at the bottom; a report is drawn without LaTeX, which may not be there."""
    plain = drawn(figures.draw_sinogram, result)
    with matplotlib.rc_context({"image.origin": "lower", "text.usetex": True, "axes.facecolor": "black"}):
        assert drawn(figures.draw_sinogram, result) == plain
    with matplotlib.rc_context({"image.origin": "lower"}):
        every = (result.plot(), result.scan.plot(), figures.draw_std(result), figures.draw_sinogram(result))
        assert {image.origin for figure in every for image in images_of(figure)} == {"upper"}


def test_what_rays_tell_stands_beside_the_whole_deviation_on_one_scale(result):
    effect = 0.5 * result.std
    one = np.zeros(1)
    hidden = Systematic(
        "per unit of line integral", "scan", one, one + 0.1, 0.1, False, True, 0.25, np.zeros((2, 1)), effect=effect
    )
    whole, rays = images_of(figures.draw_std(replace(result, systematics={"hardening": hidden})))
    assert whole.get_clim() == rays.get_clim()
    np.testing.assert_allclose(rays.get_array(), np.sqrt(0.75) * whole.get_array(), rtol=1e-5)


def test_nothing_touches_pyplot_state(result):
    for picture in PICTURES:
        picture.draw(result)
    assert not matplotlib._pylab_helpers.Gcf.get_all_fig_managers()
