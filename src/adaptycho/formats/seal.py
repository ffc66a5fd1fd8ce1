"""The seal of a recording: a checksum of everything in its file that is read, so that a changed number is not believed.

Patterns are long and go through it while they are written or read; `close` adds the rest. What nobody reads makes no difference to it.
"""

import hashlib
from typing import Any

import h5py
import numpy as np

ARRAYS = ("positions", "dose", "defocus", "probe", "mask")
TEXTS = ("title", "source", "licence")
SETUP = (
    "energy", "wavelength", "semiangle", "rotation", "field", "pixel", "object_shape", "window_shape", "detector_pixel", "binning",
    "aberrations",
)  # fmt: skip

begin = hashlib.sha256


def feed(digest: Any, name: str, values: np.ndarray) -> None:
    """Adds an array, the same on every machine."""
    values = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
    digest.update(f"{name} {values.dtype.str} {values.shape}\n".encode())
    digest.update(values.view(np.uint8).data)


def close(digest: Any, file: h5py.File) -> str:
    """Adds small arrays and attributes, and returns SHA-256 in hexadecimal digits."""
    for key in ARRAYS:
        if key in file:
            feed(digest, key, file[key][...])
    for group, keys in ((file, (*TEXTS, "counts_per_electron")), (file["setup"], SETUP)):
        for key in keys:
            if key in group.attrs:
                value = group.attrs[key]
                digest.update(f"{key} {value if isinstance(value, str) else np.asarray(value).tolist()!r}\n".encode())
    return str(digest.hexdigest())
