"""How the detector lies to the scan, and how far out of focus the beam is: what the patterns say, against what the recording says."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxtyping import Bool
from scipy.optimize import minimize_scalar
from torch import Tensor

from adaptycho.formats.recording import Recording
from adaptycho.samples.doctor import linear, trial
from adaptycho.samples.doctor.disc import Disc
from adaptycho.samples.doctor.findings import Finding, Sure
from adaptycho.samples.doctor.frames import raster
from adaptycho.samples.doctor.linear import Orientation, turned
from adaptycho.samples.doctor.polarity import Polarity, polarity
from adaptycho.samples.doctor.trial import Trial
from adaptycho.samples.doctor.virtual import Virtual, virtual

FEWEST = 36  # patterns, and steps along each side of the field, that virtual images take
FREQUENCIES = 12  # that they have at least
CERTAIN, LIKELY = 2.0, 1.3  # times what the best of the mirrored orientations explains
BETTER = 0.96  # of another's loss: not by noise alone
STRETCHED = 0.995  # the same, where only lengths of the scan differ
TELLING = 0.92  # of the loss of a mirrored orientation, below which losses of reconstructions say something
RATIOS = 0.5, 2.0  # of the recorded defocus over the one found, where it may be the scan's lengths that are wrong
SAME_ANGLE = 2.5  # degrees
SYSTEMATIC = 0.5, 0.03  # degrees, and of the defocus: what the linear theory leaves, beside the scatter of fits
SAME_FOCUS = 0.06, 0.15  # relative, and of the depth of focus lambda / alpha^2
ROUND = 0.04, 0.125  # astigmatism that does not count, likewise
SURE_ERRORS = 4.0  # standard errors that count


@dataclass(frozen=True, eq=False)
class Face:
    """Orientation and lens.

    Attributes:
        way: what the recording is to have.
        scale: factor of the scan's lengths.
        findings: about them.
        images: virtual images, where they could be made.
        polarity: of the phase.
        trials: reconstructions by name, that of `way` first.
    """

    way: Orientation
    scale: float
    findings: list[Finding]
    images: Virtual | None
    polarity: Polarity | None
    trials: tuple[tuple[str, Trial], ...]


def look(
    recording: Recording,
    disc: Disc,
    good: Bool[Tensor, "Q Q2"],
    kept: Bool[Tensor, " N"],
    shift: tuple[int, int],
    detector_pixel: float | None,
    tell: Callable[[str], None],
) -> Face:
    """Finds orientation and defocus, and compares them with the recording's.

    Args:
        recording: without a measured probe, faulty pixels masked.
        disc: in the mean pattern, with the radius of the semi-angle.
        good: detector pixels to believe, zero frequency in the centre pixel.
        kept: patterns to believe.
        shift: pixels that patterns are to be moved by.
        detector_pixel: in mrad, if another one.
        tell: is told what is being looked at.
    """
    setup = recording.setup
    given = Orientation(setup.aberrations.defocus, setup.rotation)
    part = trial.posed(trial.middle(recording, kept), given, shift=shift, detector_pixel=detector_pixel)
    images = _images(recording, disc, good, kept)
    if images is not None:
        tell("orientation: virtual images")
        best, other, shares = _seen(images)
        if shares[0] >= LIKELY * shares[1]:
            steps = raster(recording.measurement.positions[0], setup.field)
            scan = None if steps is None else tuple(round(step, 6) for step in steps.step)
            return _judged(images, part, given, (best, other), shares, scan, tell)
    tell("orientation: sixteen reconstructions")
    return _sixteen(images, part, given)


def _images(recording: Recording, disc: Disc, good: Tensor, kept: Tensor) -> Virtual | None:
    if int(kept.sum()) < FEWEST:
        return None
    images = virtual(recording, disc, good, kept)
    wide = min(images.field) >= FEWEST**0.5 / 2 * images.step
    return images if wide and len(images.frequencies) >= FREQUENCIES and len(images.angles) >= FREQUENCIES else None


def _seen(images: Virtual) -> tuple[Orientation, Orientation, tuple[float, float]]:
    """The best orientation, the best mirrored the other way, and what either explains."""
    ways = linear.search(images)
    best = linear.refine(images, ways[0])
    other = linear.refine(images, next(w for w in ways if w.mirrored != best.mirrored))
    scores = linear.explained(images, best), linear.explained(images, other)
    return (best, other, scores) if scores[0] >= scores[1] else (other, best, scores[::-1])


def _judged(
    images: Virtual,
    part: Recording,
    given: Orientation,
    ways: tuple[Orientation, Orientation],
    shares: tuple[float, float],
    scan: tuple[float, ...] | None,
    tell: Callable[[str], None],
) -> Face:
    best, other = ways
    sure: Sure = "certain" if shares[0] >= CERTAIN * shares[1] else "likely"
    found = linear.refine(images, best, "fra")
    error = linear.uncertain(images, found, "fra")
    depth = images.wavelength / (images.cutoff * images.wavelength) ** 2
    astigmatic = max(abs(a) for a in found.astigmatism)
    round_ = astigmatic < max(ROUND[0] * abs(found.defocus), ROUND[1] * depth, SURE_ERRORS * max(error.astigmatism))
    if round_:
        found = replace(found, astigmatism=(0.0, 0.0))
    seen = polarity(images, found)
    right = seen.right
    if right is None and abs(given.defocus) > SAME_FOCUS[1] * depth:
        right = (found.defocus > 0) == (given.defocus > 0)
    elif right is None:
        right = abs(turned(found.rotation - given.rotation)) <= 90
    if not right:
        found = found.conjugate
        seen = polarity(images, found)
    sign: Sure = "open" if seen.right is None else "certain" if seen.agreed else "likely"

    tell("orientation: short reconstructions")
    slack = SAME_ANGLE + SURE_ERRORS * error.rotation
    angle_differs = abs(turned(found.rotation - given.rotation)) > slack
    slack = max(SAME_FOCUS[0] * abs(found.defocus), SAME_FOCUS[1] * depth, SURE_ERRORS * error.defocus)
    focus_differs = abs(found.defocus - given.defocus) > slack
    way = replace(
        found,
        rotation=found.rotation if angle_differs else given.rotation,
        defocus=found.defocus if focus_differs else given.defocus,
    )
    ways_tried = {"as found": way, "mirrored": other} | ({"as recorded": given} if way != given else {})
    trials = [(name, trial.attempt(part, tried)) for name, tried in ways_tried.items()]
    scale = 1.0
    telling = trials[0][1].loss < TELLING * trials[1][1].loss
    if focus_differs and telling and RATIOS[0] < given.defocus / found.defocus < RATIOS[1]:
        tell("orientation: scan step or defocus")
        ratio = given.defocus / found.defocus
        factor, stretched = _stretched(part, replace(way, defocus=given.defocus, astigmatism=(0.0, 0.0)), ratio)
        if stretched.loss < STRETCHED * trials[0][1].loss:
            scale, way, focus_differs = factor, stretched.way, False
            trials[0] = ("as found", stretched)
    value = {"swap": found.mirrored, "explained": shares[0], "explained_mirrored": shares[1]}
    value |= {f"loss, {name}": one.loss for name, one in trials}
    turn = f"{found.rotation:.1f} ± {max(error.rotation, SYSTEMATIC[0]):.1f} degrees"
    findings = [
        Finding(
            "detector's axes",
            ("rows and columns are exchanged" if found.mirrored else "not mirrored")
            + f": a phase object explains {shares[0]:.0%} of the virtual images, {shares[1]:.0%} if they were the other way",
            sure=sure,
            wrong=found.mirrored,
            mend="--swap",
            value=value,
        ),
        Finding(
            "rotation",
            turn + (" once rows and columns are exchanged" if found.mirrored else ""),
            f"{given.rotation:g}",
            _least(sure, sign),
            angle_differs,
            f"--rotation {found.rotation:.1f}",
            {"degrees": found.rotation, "error": max(error.rotation, SYSTEMATIC[0])},
        ),
        _focus(found, given, error, sign, sure, depth, focus_differs, seen),
    ]
    if not round_:
        a, b = found.astigmatism
        text = f"{(a * a + b * b) ** 0.5:.4g} Å of the defocus; import has no option for it, --fix writes it"
        findings.append(Finding("astigmatism", text, "", "likely", True, "", list(found.astigmatism)))
    if scale != 1:
        text = f"the scan's lengths fit better times {scale:.3f} than another defocus does"
        mend = "" if scan is None else "--scan-step " + ",".join(f"{scale * step:.4g}" for step in dict.fromkeys(scan))
        findings.append(Finding("scan step", text, "", "likely", True, mend, {"scale": scale}))
    return Face(way, scale, findings, images, seen, tuple(trials))


def _stretched(part: Recording, way: Orientation, ratio: float) -> tuple[float, Trial]:
    """The factor of the scan's lengths with which the recorded defocus, `ratio` times the one found, does best, and what it does."""
    # Lengths that shifts of images ask for, or up to the square of their factor: edges of discs pull the fit of the defocus back.
    limits = tuple(sorted((1.0, ratio**2)))

    def loss(factor: float) -> float:
        return trial.attempt(part, way, scale=factor).loss

    factor = float(minimize_scalar(loss, bounds=limits, method="bounded", options={"xatol": 0.005, "maxiter": 12}).x)
    return factor, trial.attempt(part, way, scale=factor)


def _focus(
    found: Orientation, given: Orientation, error: Orientation, sign: Sure, sure: Sure, depth: float, differs: bool, seen: Polarity
) -> Finding:
    accuracy = max(error.defocus, SYSTEMATIC[1] * abs(found.defocus))
    if abs(found.defocus) < SAME_FOCUS[1] * depth:
        text = f"{found.defocus:.3g} ± {accuracy:.2g} Å: in focus"
    else:
        text = f"{abs(found.defocus):.4g} ± {accuracy:.2g} Å {'under' if found.defocus > 0 else 'over'}focus"
    text += {
        "certain": ", by where the specimen is dense",
        "likely": ", the sign by where the specimen seems dense",
        "open": "; the sign (with 180 degrees of rotation) cannot be told from these patterns: the recording's is kept",
    }[sign]
    value = {"angstrom": found.defocus, "error": accuracy, "matter": seen.matter, "skewness": seen.skewness}
    said = f"{given.defocus:g} Å"
    return Finding("defocus", text, said, _least(sure, sign), differs, f"--defocus {found.defocus:.4g}", value)


def _sixteen(images: Virtual | None, part: Recording, given: Orientation) -> Face:
    """All quarter turns, mirrored and not, with both signs of the defocus, where virtual images are too few to tell."""
    ways = [
        Orientation(sign * given.defocus, turned(given.rotation + 90 * quarter), mirrored)
        for mirrored in (False, True)
        for quarter in range(4)
        for sign in ((1, -1) if given.defocus else (1,))
    ]
    tried = sorted((trial.attempt(part, way) for way in ways), key=lambda t: t.loss)
    as_recorded = next(
        t for t in tried if t.way.defocus == given.defocus and not t.way.mirrored and t.way.rotation == turned(given.rotation)
    )
    best = tried[0]
    others = [t for t in tried if t.way != best.way and t.way != best.way.conjugate]
    clear = best.loss < BETTER * others[0].loss
    if best.way.conjugate == as_recorded.way or not clear or best.loss > BETTER * as_recorded.loss:
        best = as_recorded  # what the patterns cannot tell apart stays as it is
    wrong = best is not as_recorded
    text = f"of sixteen short reconstructions the best ends at {tried[0].loss:.4g}, as recorded at {as_recorded.loss:.4g}"
    sure: Sure = "likely" if clear else "open"
    way = best.way if wrong else given
    mend = [f"--rotation {way.rotation:g}", f"--defocus {way.defocus:g}", *(["--swap"] if way.mirrored else [])]
    second = next(t for t in tried if t is not best)
    value = {"swap": way.mirrored, "degrees": way.rotation, "angstrom": way.defocus, "loss": best.loss}
    finding = Finding("orientation", text, "", sure, wrong, " ".join(mend), value)
    trials = (("as found", best), ("second best", second))
    return Face(way, 1.0, [finding], images, None, trials)


def _least(*sure: Sure) -> Sure:
    order: tuple[Sure, ...] = ("open", "likely", "certain")
    return min(sure, key=order.index)
