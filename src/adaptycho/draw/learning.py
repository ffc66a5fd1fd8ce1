"""Learning as pictures: rewards as training goes on, who owns which part of a picture, what a code keeps, how positions wander.

The forms of Figs. 3, 6 and 7 of the paper. Phases are in rad less their median, positions are fractions (y, x) of the scan field, whose
size is (y, x) in Å.
"""

import string
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from scipy.spatial import Voronoi
from torch import Tensor

from adaptycho.draw.style import COLOURS, MARKERS, STYLE, colour_bar, dots, greys, panels, scale_bar, show

Point = tuple[float, float, float, float]  # step, mean and the ends of its interval
CHANNELS = 4  # of a code that are shown, as in Fig. 6
INSIDE = 1e-6  # of the field: positions on its edge and their mirror images stay two
OUTLINE, SEEDS, SHADE, GIVEN = "#56B4E9", "#D55E00", "#0072B2", "#F0E442"
ABOVE = 1.5  # lines, below the scale bar


def curves(named: Mapping[str, Sequence[Point]], *, quantity: str = "reward", step: str = "iteration", note: str = "") -> Figure:
    """Learning curves: the mean of a quantity against training steps, its interval as a band (Fig. 3a).

    Args:
        named: by name of the training, (step, mean, low, high) in order; what is not a number leaves a gap.
        quantity: what the curves show, for the axis.
        step: what the steps are.
        note: a line above the names of the curves.

    Raises:
        ValueError: there is nothing to show.
    """
    if not any(named.values()):
        raise ValueError("named: expected at least one curve with a point, got none")
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.0), layout="constrained")
        axis = figure.subplots()
        for i, (name, points) in enumerate(named.items()):
            steps, mean, low, high = np.array(points, dtype=float).reshape(-1, 4).T
            ink, every = COLOURS[i % len(COLOURS)], max(1, len(steps) // 8)
            axis.fill_between(steps, low, high, color=ink, alpha=0.2, lw=0)
            # A few markers, not at the same steps, tell curves apart in black and white.
            first = i * every // max(1, len(named))
            axis.plot(steps, mean, color=ink, lw=1.4, marker=MARKERS[i % len(MARKERS)], ms=4.5, markevery=(first, every), label=name)
        axis.set(xlabel=step, ylabel=quantity)
        axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        axis.grid(lw=0.4, color="#dddddd")
        legend = figure.legend(*axis.get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False, title=note or None)
        legend.set_alignment("left")
    return figure


def tessellation(phase: Float[Tensor, "h w"], positions: Float[Tensor, "P 2"], field: tuple[float, float], *, first: int = 0) -> Figure:
    """The Voronoi cells of a scan over a phase: what the Voronoi reward pays to whom (Fig. 3b).

    Args:
        phase: in rad inside the scan field.
        positions: red dots, in the order of the scan; those outside the field count at its edge.
        field: size (y, x) in Å.
        first: so many positions of the first sub-sequence have their cells shaded blue.
    """
    polygons, owner = _polygons(positions, field)
    low, high = greys(phase)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, 1, field, panel=4.0, lines=1)
        axis = axes[0, 0]
        grey = show(axis, phase, field, low, high)
        shaded = [polygons[i] for i in np.unique(owner[:first])]
        axis.add_collection(PolyCollection(shaded, facecolors=SHADE, alpha=0.5, edgecolors="none"))
        axis.add_collection(LineCollection([np.concatenate([p, p[:1]]) for p in polygons], colors=OUTLINE, linewidths=0.7, zorder=1))
        dots(axis, positions.clamp(0, 1), field, s=min(30.0, max(6.0, 3000 / len(positions))), color=SEEDS, zorder=ABOVE)
        axis.set_xlabel(f"{len(positions)} positions" + (f"; shaded: the first {first}" if first else ""))
        scale_bar(axis, field)
        colour_bar(grey, [axis], "phase / rad", aspect=30, pad=0.02)
    return figure


def compression(
    phase: Float[Tensor, "h w"], latent: Float[Tensor, "Z y x"], decoded: Float[Tensor, "n m"], field: tuple[float, float]
) -> Figure:
    """What an autoencoder makes of a partial reconstruction: input, four channels of its code, decoded (Fig. 6).

    The channels are those with the largest variance, each on a grey scale of its own; input and decoded share the input's.

    Args:
        phase: what was compressed, in rad.
        latent: its code; fewer than four channels leave frames empty.
        decoded: what the code was decoded to, in rad; of any size.
        field: size (y, x) in Å of all of them.
    """
    spread = latent.detach().double().flatten(1).var(1, correction=0)
    chosen = spread.argsort(descending=True, stable=True)[:CHANNELS].sort().values.tolist()
    low, high = greys(phase)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(2, 3, field, lines=0)
        frames = iter(zip(axes.flat, string.ascii_lowercase, strict=False))
        axis, letter = next(frames)
        show(axis, phase, field, low, high)
        _title(axis, letter, "reconstruction")
        scale_bar(axis, field)
        for channel, (axis, letter) in zip(chosen, frames, strict=False):
            show(axis, latent[channel], field, *greys(latent[channel]))
            _title(axis, letter, f"channel {channel + 1} of {len(latent)}")
        grey = show(axes[1, 2], decoded, field, low, high)
        _title(axes[1, 2], string.ascii_lowercase[CHANNELS + 1], "decoded")
        for axis in axes.flat[len(chosen) + 1 : CHANNELS + 1]:
            axis.axis("off")
        colour_bar(grey, list(axes.flat), "phase / rad (a, f)", aspect=25)
    return figure


def trajectories(
    phase: Float[Tensor, "h w"], named: Mapping[str, Float[Tensor, "_ _ 2"]], first: Float[Tensor, "A 2"], field: tuple[float, float]
) -> Figure:
    """How the positions of a policy wander over the specimen while it is trained, a frame for each training (Fig. 7).

    Args:
        phase: of the specimen, in rad.
        named: by name of the training, positions "I P 2" of all predicted sub-sequences on this specimen at I moments from the first to the
            last. What lies outside the field is left out of the frame.
        first: positions of the first sub-sequence, which the policy is given (A).
        field: size (y, x) in Å.

    Raises:
        ValueError: there is no training, or one without a moment.
    """
    if not named or not all(len(track) for track in named.values()):
        raise ValueError(f"named: expected at least one training with a moment, got {[(k, len(v)) for k, v in named.items()]}")
    low, high = greys(phase)
    with matplotlib.rc_context(STYLE):
        figure, axes = panels(1, len(named), field, panel=min(4.0, 6.0 / len(named)), lines=1)
        for axis, letter, (name, track) in zip(axes.flat, string.ascii_lowercase, named.items(), strict=False):
            grey = show(axis, phase, field, low, high)
            paths = track.detach().double().cpu().transpose(0, 1).flip(-1) * torch.tensor([field[1], field[0]], dtype=torch.float64)
            axis.add_collection(LineCollection(list(paths.numpy()), colors=OUTLINE, linewidths=0.8, linestyles=(0, (3, 1)), zorder=1))
            size = min(18.0, max(6.0, 1800 / max(1, track.shape[1])))
            entries = (
                ("A: given", first, "^", GIVEN, 1.8),
                ("B: before training", track[0], "s", "white", 0.8),
                ("C: after", track[-1], "o", SEEDS, 1.2),
            )
            for text, places, marker, ink, scale in entries:
                seen = places[((places >= 0) & (places <= 1)).all(1)]
                dots(
                    axis,
                    seen,
                    field,
                    s=scale * size,
                    marker=marker,
                    color=ink,
                    label=text,
                    edgecolors="black",
                    linewidths=0.4,
                    zorder=ABOVE,
                )
            _title(axis, letter if len(named) > 1 else "", name)
        scale_bar(axes[0, 0], field)
        colour_bar(grey, list(axes.flat), "phase / rad", aspect=25)
        figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower left", ncols=3, frameon=False, handletextpad=0.1)
    return figure


def _title(axis: Axes, letter: str, text: str) -> None:
    axis.set_title(f"{letter}) {text}" if letter else text)


def _polygons(positions: Tensor, field: tuple[float, float]) -> tuple[list[np.ndarray], np.ndarray]:
    """Corners (x, y) in Å of each cell inside the field, and which of them each position has; those at one place share theirs."""
    inside = positions.detach().double().cpu().numpy().clip(INSIDE, 1 - INSIDE)
    points, owner = np.unique(inside.round(9), axis=0, return_inverse=True)
    # Mirror images in the four edges end the cells there.
    mirrored = [points]
    for axis in (0, 1):
        for edge in (0, 1):
            image = points.copy()
            image[:, axis] = 2 * edge - image[:, axis]
            mirrored.append(image)
    diagram = Voronoi(np.concatenate(mirrored) * field)
    corners = [diagram.vertices[diagram.regions[diagram.point_region[i]]] for i in range(len(points))]
    return [c[:, ::-1] for c in corners], owner.reshape(-1)
