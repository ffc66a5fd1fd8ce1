"""What the doctor found on one HTML page with pictures, complete in itself."""

import base64
import io
import math
from typing import Any

import jinja2
import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from torch import Tensor

from adaptycho.draw.style import STYLE, centred, greys, scale_bar
from adaptycho.formats.recording import Recording
from adaptycho.samples.doctor.findings import Findings
from adaptycho.samples.doctor.frames import raster
from adaptycho.samples.doctor.linear import Orientation
from adaptycho.samples.doctor.polarity import polarity
from adaptycho.samples.doctor.trial import Trial
from adaptycho.samples.doctor.virtual import Virtual

FOUND, SEEN = "#FF9A00", "#0072B2"
GRID = 41  # shifts along each axis that a virtual image is looked for at
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{ title }}</title>
<style>
 body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; color: #1c2430; font: 16px/1.5 system-ui, sans-serif; }
 table { border-collapse: collapse; font-size: .95rem; } th, td { text-align: left; vertical-align: top; padding: .35rem .8rem;
 border-bottom: 1px solid #dde3ea; } .wrong td:first-child { color: #b03000; font-weight: 650; } .open { color: #5a6675; }
 img { max-width: 100%; } figcaption { color: #5a6675; } code { background: #f4f7fa; padding: .1rem .3rem; overflow-wrap: anywhere; }
</style></head><body>
<h1>{{ title }}</h1>
<p>{% if found.healthy %}Nothing to mend was found.{% else %}What is wrong is mended by <code>adaptycho import ... {{ found.options
}}</code>, or by <code>adaptycho inspect FILE --doctor --fix OUT</code>.{% endif %}</p>
<table><thead><tr><th></th><th>what</th><th>the patterns say</th><th>the recording says</th><th>mend</th></tr></thead><tbody>
{% for one in found.findings %}<tr class="{{ 'wrong' if one.wrong else one.sure }}"><td>{{ 'wrong' if one.wrong else 'open' if
one.sure == 'open' else 'ok' }}</td><td>{{ one.name }}</td><td>{{ one.found }}</td><td>{{ one.said }}</td><td>{% if one.wrong %}<code>{{
one.mend or '--fix' }}</code>{% endif %}</td></tr>
{% endfor %}</tbody></table>
{% for note in found.warnings %}<p>Note: {{ note }}</p>
{% endfor %}<figure style="margin: 1.5rem 0"><img src="{{ picture }}" alt="Mean pattern, shifts, bright field and phases">
<figcaption>Above: the mean pattern with the disc (orange) and faulty pixels (blue crosses); how far the image that each bright-field pixel
makes of the specimen is shifted (blue), and should be by what was found (orange), in the axes of the scan; the bright field, and
the same images summed with their shifts taken back. Below, for the orientation found and for another: the phase to first order, and
short reconstructions of the middle of the scan.</figcaption></figure>
</body></html>
"""


def page(recording: Recording, found: Findings) -> str:
    """The page as HTML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    buffer, figure = io.BytesIO(), picture(recording, found)
    FigureCanvasAgg(figure)
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    embedded = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    title = f"Calibration of {recording.title or (recording.path.name if recording.path else 'a recording')}"
    return environment.from_string(PAGE).render(title=title, found=found, picture=embedded)


def picture(recording: Recording, found: Findings) -> Figure:
    """Mean pattern, shifts of the virtual images, the bright field as it is and with the shifts taken back, phases."""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(13.5, 6.6), layout="constrained")
        axes = figure.subplots(2, 4)
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[], aspect="equal")
        _pattern(axes[0, 0], found)
        for axis, (name, trial) in zip(axes[1, 2:], found.trials, strict=False):
            _phase(axis, name, trial)
        if (images := found.images) is None:
            for axis in (*axes[0, 1:], *axes[1, :2]):
                axis.set_title("too few positions")
            return figure
        way = found.trials[0][1].way
        _shifts(axes[0, 1], images, way)
        _image(axes[0, 2], recording, found, images.total - images.total.mean(), "bright field as it is")
        _image(axes[0, 3], recording, found, _aligned(images, way), "bright field, shifts taken back")
        for axis, (name, trial) in zip(axes[1, :2], found.trials, strict=False):
            _image(axis, recording, found, polarity(images, trial.way).image, f"phase to first order, {name}")
    return figure


def _pattern(axis: Axes, found: Findings) -> None:
    shown = np.sqrt(np.where(found.mend.faulty, np.nan, np.maximum(found.mean, 0)))
    axis.imshow(shown, cmap="gray")
    axis.set_title("mean pattern, square root")
    middle = np.array(found.mean.shape) // 2
    axis.plot(middle[1], middle[0], "+", color="white", ms=9)
    if found.disc is not None:
        y, x = middle + np.array(found.disc.centre)
        axis.add_patch(Circle((x, y), found.disc.radius, fill=False, color=FOUND, lw=1.5))
        axis.plot(x, y, "x", color=FOUND, ms=7)
    y, x = np.nonzero(found.mend.faulty)
    axis.plot(x, y, "x", color=SEEN, ms=6)


def _gradient(images: Virtual, way: Orientation) -> Float[Tensor, "K 2"]:
    """By how much each virtual image should be shifted, in Å in the axes of the scan: lambda times the gradient of chi over 2 pi."""
    k = (images.angles.flip(-1) if way.mirrored else images.angles).double()
    a, b = way.astigmatism
    lens = torch.tensor([[way.defocus + a, b], [b, way.defocus - a]], dtype=torch.float64)
    cos, sin = math.cos(math.radians(way.rotation)), math.sin(math.radians(way.rotation))
    turn = torch.tensor([[cos, -sin], [sin, cos]], dtype=torch.float64)
    return images.wavelength * k @ lens.T @ turn.T


def _shifts(axis: Axes, images: Virtual, way: Orientation) -> None:
    expected = _gradient(images, way)
    q = images.frequencies.double()
    together = (images.spectra * torch.polar(torch.ones(()), (2 * math.pi * q @ expected.T).float())).sum(1)
    reach = max(1.5 * float(expected.norm(dim=-1).max()), 3 * images.step)
    line = torch.linspace(-reach, reach, GRID, dtype=torch.float64)
    tried = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    waves = torch.polar(torch.ones(()), (2 * math.pi * tried @ q.T).float())
    seen = tried[(waves @ (images.spectra * together.conj()[:, None])).real.argmax(0)].numpy()
    y, x = images.angles.numpy().T * images.wavelength * 1e3
    scale = reach / (0.25e3 * images.cutoff * images.wavelength)
    options: dict[str, Any] = {"angles": "xy", "scale_units": "xy", "scale": scale, "pivot": "tail"}
    for arrows, colour, width in ((expected.numpy(), FOUND, 0.012), (seen, SEEN, 0.006)):
        axis.quiver(x, y, arrows[:, 1], arrows[:, 0], color=colour, width=width, **options)
    axis.invert_yaxis()
    axis.margins(0.15)
    axis.set_title(f"shifts, up to {float(expected.norm(dim=-1).max()):.3g} Å")


def _aligned(images: Virtual, way: Orientation) -> Tensor:
    """The sum of the virtual images, each shifted back, at the positions."""
    q = images.frequencies.double()
    back = torch.polar(torch.ones(()), (2 * math.pi * q @ _gradient(images, way).T).float())
    together = (images.spectra * back).sum(1)
    angle = 2 * math.pi * images.positions @ q.T
    return angle.cos().float() @ together.real - angle.sin().float() @ together.imag


def _image(axis: Axes, recording: Recording, found: Findings, values: Tensor, title: str) -> None:
    """Values at the kept positions, as an image where they make a raster."""
    assert found.images is not None
    scan = raster(recording.measurement.positions[0], recording.setup.field)
    size, kept = recording.setup.field, found.mend.kept
    whole = torch.full(kept.shape, math.nan)
    whole[kept] = values.float()
    shown = whole.reshape((-1, 1) if scan is None else scan.shape)
    low, high = greys(shown)
    if scan is not None:
        axis.imshow(centred(shown), cmap="gray", vmin=low, vmax=high, extent=(0, size[1], size[0], 0))
    else:
        y, x = found.images.positions.numpy().T
        axis.scatter(x, y, c=centred(shown)[kept.numpy(), 0], s=max(1.0, 4e3 / len(values)), cmap="gray", vmin=low, vmax=high, lw=0)
        axis.set(xlim=(0, size[1]), ylim=(size[0], 0))
    axis.set_title(title)
    scale_bar(axis, size)


def _phase(axis: Axes, name: str, trial: Trial) -> None:
    size = trial.part.setup.field
    low, high = greys(trial.phase)
    axis.imshow(centred(trial.phase), cmap="gray", vmin=low, vmax=high, extent=(0, size[1], size[0], 0))
    axis.set_title(f"phase, {name} (loss {trial.loss:.4g})")
    scale_bar(axis, size)
