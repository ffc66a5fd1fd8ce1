"""How things show themselves in a notebook: a picture and a few facts."""

import base64
import html
import io
from collections.abc import Mapping

import numpy as np

WIDEST = 256  # pixels of a picture; larger ones are thinned out


def card(title: str, facts: Mapping[str, str], image: np.ndarray | None = None, *, scale: int = 200) -> str:
    """HTML of one thing: its name, what there is to know, and a picture in grey.

    Args:
        title: what it is.
        facts: values by their names.
        image: (h, w), from its lowest value in black to its highest in white; what is not finite is black. None shows no picture.
        scale: height of the picture on the page in pixels.
    """
    rows = "".join(f"<tr><th style='text-align:left'>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    text = f"<div><b>{html.escape(title)}</b><table>{rows}</table></div>"
    shown = "" if image is None else f"<img alt='{html.escape(title)}' height='{scale}' src='data:image/png;base64,{_png(image)}'>"
    return f"<div style='display:flex;gap:1em;align-items:center'>{shown}{text}</div>"


def _png(image: np.ndarray) -> str:
    from matplotlib.image import imsave

    step = -(-max(image.shape) // WIDEST)
    values = np.asarray(image, np.float64)[::step, ::step]
    known = values[np.isfinite(values)]
    low = float(known.min()) if known.size else 0.0
    file = io.BytesIO()
    imsave(file, np.where(np.isfinite(values), values, low), cmap="gray", format="png")
    return base64.b64encode(file.getvalue()).decode()
