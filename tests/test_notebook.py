"""What a notebook shows of measurements, reconstructions and scans."""

import base64
import io
import re

import matplotlib.image
import numpy as np
import pytest

import adaptycho as ad
from adaptycho.support.notebook import card


def picture(page: str) -> np.ndarray:
    (found,) = re.findall(r"data:image/png;base64,([^']+)", page)
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(found)), format="png")[..., 0]


def test_everything_that_a_scan_gives_shows_itself() -> None:
    chosen = ad.settings.preset("light")
    microscope = ad.build.simulated(chosen)
    (state,) = ad.run(microscope, ad.build.scanner(chosen), ad.build.reconstructor(chosen, microscope.setup), [9], seed=0)
    for thing, facts, shape in (
        (state.seen, ("9 of 32 x 32 pixels", "data sets"), (32, 32)),
        (state.reconstruction, (f"{state.reconstruction.loss[0, -1]:.4g}",), tuple(state.reconstruction.potential.shape[1:])),
        (state, ("9, of which 9 are new", "acquire"), tuple(state.potential.shape[1:])),
    ):
        page = thing._repr_html_()
        assert all(fact in page for fact in facts), page[-600:]
        assert picture(page).shape == shape
    phase = state.potential[0].numpy()
    grey = picture(state._repr_html_())
    # 256 levels, rounded to a level of the map and again to one of the file.
    np.testing.assert_allclose(grey, (phase - phase.min()) / (phase.max() - phase.min()), atol=2 / 255)


@pytest.mark.parametrize("image", [np.full((5, 4), np.nan), np.zeros((5, 4)), np.array([[np.inf, 0.0], [1.0, np.nan]])])
def test_what_diverged_is_shown_too(image: np.ndarray) -> None:
    assert np.isfinite(picture(card("a <b>", {"c": "<d>"}, image))).all()
    assert "a &lt;b&gt;" in card("a <b>", {"c": "<d>"}, image) and "<d>" not in card("a", {"c": "<d>"}, None)


def test_large_pictures_are_thinned_out() -> None:
    assert picture(card("a", {}, np.random.default_rng(0).random((1000, 300)))).shape == (250, 75)
