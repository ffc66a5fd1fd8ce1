"""Mutations of what HDF5 files hold: arrays and attributes gone, of another type, shape or size, or from somewhere else."""

import json
import random
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from fuzz.absurd import ABERRATIONS, ABSURD, KINDS
from fuzz.arrays import PATTERNS, POSITIONS, TYPES
from fuzz.case import Expect, Mutation, Unfit

TEXTS = ("", "x", "\x1b[31mred\x1b[0m", "line\nline", "long " * 50_000, "\u202eright", "<script>", "\x07\x08")
NUMBERS = {"patterns": PATTERNS, "positions": POSITIONS}


def recording(rng: random.Random, path: Path) -> Mutation:
    """Changes a recording in the project's own layout; what is required is refused where it is not as it must be."""
    with h5py.File(path, "r+") as file:
        way = rng.choice(
            ["number"] * 5 + ["array"] * 5 + ["gone"] * 2 + ["text", "aberrations", "more", "link", "storage", "huge", "group"]
        )
        if way == "number":
            return _number(rng, file)
        if way == "array":
            return _array(rng, file, rng.choice(["patterns", "patterns", "positions", "dose", "defocus"]))
        if way == "gone":
            return _gone(rng, file, {"title": "free", "source": "free", "licence": "free", "probe": "free", "units": "same"})
        if way == "text":
            key, text = rng.choice(["title", "source", "licence"]), rng.choice([*TEXTS, b"\xff\xfe"])
            file.attrs[key] = text if isinstance(text, str) else np.bytes_(text)
            return Mutation("attribute text", f"{key} = {ascii(text)[:40]}", "free")
        if way == "aberrations":
            text = rng.choice(list(ABERRATIONS))
            # Attributes beyond 64 kB are not stored the usual way.
            file["setup"].attrs["aberrations"] = np.bytes_(text.encode()) if len(text) > 60_000 else text
            return Mutation("aberrations", text[:40], ABERRATIONS[text])
        if way == "huge":
            return _huge(rng, file)
        if way == "group":
            key = rng.choice(["patterns", "positions", "dose", "defocus", "setup"])
            del file[key]
            _ = file.create_group(key) if key != "setup" else file.create_dataset(key, data=[1.0])
            return Mutation("group for array", key, "refused")
        if way == "more":
            return _more(rng, file)
        return _elsewhere(rng, file, path) if way == "link" else _stored(rng, file)


def own(rng: random.Random, path: Path) -> Mutation:
    """Changes a file that a run wrote for itself: never may it be taken for something else."""
    with h5py.File(path, "r+") as file:
        arrays = [name for name in _names(file) if isinstance(file[name], h5py.Dataset)]
        way = rng.choice(["array"] * 6 + ["edited"] * 3 + ["gone"] * 2 + ["attribute", "more", "link", "storage", "huge", "group"])
        if way == "array":
            found = _array(rng, file, rng.choice(arrays))
        elif way == "edited":
            key = rng.choice(arrays)
            values = np.array(file[key][()])
            values = np.where(np.arange(values.size).reshape(values.shape) == values.size // 2, values + 1, values).astype(values.dtype)
            _put(file, key, values)
            found = Mutation("array edited", key, "either")
        elif way == "gone":
            found = _gone(rng, file, {})
        elif way == "attribute":
            key, value = rng.choice(list(file.attrs)), rng.choice([1.5, "x", np.nan, [1, 2, 3], "adaptycho run 9", b"\xff"])
            file.attrs[key] = np.bytes_(value) if isinstance(value, bytes) else value
            found = Mutation("attribute value", f"{key} = {value!r}", "either")
        elif way == "huge":
            found = _huge(rng, file)
        elif way == "group":
            key = rng.choice(arrays)
            del file[key]
            file.create_group(key)
            found = Mutation("group for array", key, "either")
        elif way == "more":
            found = _more(rng, file)
        else:
            found = _elsewhere(rng, file, path) if way == "link" else _stored(rng, file)
    return Mutation(found.label, f"{path.name}: {found.text}", "either")


def foreign(rng: random.Random, path: Path) -> Mutation:
    """Changes another program's file that is imported: patterns only."""
    with h5py.File(path, "r+") as file:
        way = rng.choice(["array"] * 5 + ["more", "link", "storage", "huge", "loop", "null", "second", "chain"])
        if way == "array":
            return _array(rng, file, "data/patterns")
        if way == "loop":
            file["data/again"] = file["/"]
            return Mutation("hdf5 loop", "a group in itself", "same")
        if way == "null":
            file["more"] = h5py.Empty("f4")
            return Mutation("null array", "beside the patterns", "same")
        if way == "second":
            file["more"] = np.zeros((3, 4, 4))
            return Mutation("second array", "with three axes", "refused")
        if way == "chain":
            group = file
            for _ in range(3000):
                group = group.create_group("g")
            return Mutation("hdf5 deep", "3,000 groups in each other", "either")
        if way == "huge":
            del file["data/patterns"]
            file.create_dataset("data/patterns", (3_000_000, 32, 32), "f4", chunks=(100, 32, 32), compression="gzip")
            return Mutation("huge", "12 GiB declared", "refused")
        if way == "more":
            return _more(rng, file)
        return _elsewhere(rng, file, path) if way == "link" else _stored(rng, file)


def _names(file: h5py.File) -> list[str]:
    found: list[str] = []
    file.visit(found.append)
    return found


def _number(rng: random.Random, file: h5py.File) -> Mutation:
    places = [(file, "counts_per_electron"), *((file["setup"], key) for key in file["setup"].attrs if key not in ("aberrations", "units"))]
    group, key = rng.choice(places)
    value = np.asarray(group.attrs[key])
    way = rng.choice([*KINDS, *["absurd"] * len(KINDS)]) if key in ABSURD else rng.choice(list(KINDS))
    if way != "absurd":
        change, expect = KINDS[way]
        with np.errstate(all="ignore"):
            group.attrs[key] = change(value)
        return Mutation(f"attribute {way}", key, expect)
    step = rng.choice(ABSURD[key])
    new = value * step if isinstance(step, float) else np.full(value.shape, float(step))
    whole = value.dtype.kind in "iu"
    if whole and float(np.max(new)) > 9e18:
        raise Unfit
    group.attrs[key] = new.astype(np.int64) if whole else new
    return Mutation(f"{key} absurd", f"{value} becomes {new}", "refused")


def _array(rng: random.Random, file: h5py.File, key: str) -> Mutation:
    changes = NUMBERS.get(key.rpartition("/")[2], TYPES)
    way = rng.choice([*changes, "empty", "negative numbers", "object array", "varying"])
    old, expect = np.array(file[key][()]), "refused"
    if way == "empty":
        new: Any = h5py.Empty(old.dtype)
    elif way == "negative numbers":
        new, expect = -old - 1.0, "free" if key == "defocus" else "refused"
    elif way == "object array":
        new = np.array([b"x"] * max(old.size, 1), dtype=h5py.string_dtype()).reshape(old.shape)
    elif way == "varying":
        new = np.empty(len(old) if old.ndim else 1, dtype=h5py.vlen_dtype(np.float32))
        new[:] = [np.zeros(3, np.float32)] * len(new)
    else:
        change, expect = changes[way]
        with np.errstate(all="ignore"):
            try:
                new = change(old)
            except (ValueError, IndexError, TypeError):
                raise Unfit from None
        if new.dtype.kind in "OUMm":
            raise Unfit  # HDF5 has no such type
        if way == "one axis more":
            expect = "free" if key == "data/patterns" else "refused"
    _put(file, key, new)
    return Mutation(f"array {way}", key, expect)


def _put(file: h5py.File, key: str, values: Any) -> None:
    del file[key]
    file[key] = values


def _gone(rng: random.Random, file: h5py.File, free: dict[str, Expect]) -> Mutation:
    things = [(file, None, name) for name in _names(file)] + [(g, k, k) for g in (file, *_groups(file)) for k in g.attrs]
    things += [(file[n], k, k) for n in _names(file) if isinstance(file[n], h5py.Dataset) for k in file[n].attrs]
    owner, attribute, name = rng.choice(things)
    way = rng.choice(["dropped", "renamed"])
    if attribute is None:
        if way == "renamed":
            file[f"{name}x"] = file[name]
        del file[name]
    else:
        if way == "renamed":
            owner.attrs[f"{name}x"] = owner.attrs[name]
        del owner.attrs[name]
    label = "array" if attribute is None else "attribute"
    described = isinstance(owner, h5py.Dataset) or name == "units"
    return Mutation(f"{label} {way}", name, "same" if described else free.get(name, "refused"))


def _groups(file: h5py.File) -> list[h5py.Group]:
    return [file[name] for name in _names(file) if isinstance(file[name], h5py.Group)]


def _more(rng: random.Random, file: h5py.File) -> Mutation:
    way = rng.choice(["attribute", "array", "group", "type", "soft link"])
    if way == "attribute":
        file.attrs["unknown"] = rng.choice([1.0, "x", [1, 2]])
    elif way == "array":
        file["unknown"] = np.arange(5.0)
    elif way == "group":
        file.create_group("unknown/more")
    elif way == "type":
        file["unknown"] = np.dtype("f8")
    else:
        file["unknown"] = h5py.SoftLink("/nowhere")
    return Mutation(f"more: {way}", "unknown", "same")


def _elsewhere(rng: random.Random, file: h5py.File, path: Path) -> Mutation:
    """An array whose bytes are not in the file, or that is reached by another name."""
    arrays = [n for n in _names(file) if isinstance(file[n], h5py.Dataset) and file[n].ndim]
    key = rng.choice(arrays)
    values, way = (
        np.array(file[key][()]),
        rng.choice(["external link", "virtual", "external storage", "soft link", "soft loop", "hard link"]),
    )
    other = path.with_name("other.h5")
    expect: Expect = "refused"
    if way in ("external link", "virtual"):
        with h5py.File(other, "w") as second:
            second["values"] = values
    del file[key]
    if way == "external link":
        file[key] = h5py.ExternalLink("other.h5", "/values")
    elif way == "virtual":
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[...] = h5py.VirtualSource("other.h5", "values", values.shape)
        file.create_virtual_dataset(key, layout)
    elif way == "external storage":
        raw = path.with_name("secret.txt")
        raw.write_bytes(b"do not show" * (values.nbytes // 11 + 1))
        file.create_dataset(key, values.shape, values.dtype, external=[(str(raw), 0, h5py.h5f.UNLIMITED)])
    elif way == "soft link":
        file["moved"] = values
        file[key], expect = h5py.SoftLink("/moved"), "either"
    elif way == "soft loop":
        file[key] = h5py.SoftLink(f"/{key}")
    else:
        file["moved"] = values
        file[key], expect = file["moved"], "either"
        if "/" in key:
            del file["moved"]
    return Mutation(way, key, expect)


def _stored(rng: random.Random, file: h5py.File) -> Mutation:
    """The same numbers, stored in another way."""
    key = rng.choice([n for n in _names(file) if isinstance(file[n], h5py.Dataset) and file[n].ndim])
    values = np.array(file[key][()])
    ways: dict[str, dict[str, Any]] = {
        "contiguous": {},
        "gzip": {"compression": "gzip", "chunks": True},
        "lzf": {"compression": "lzf", "chunks": True},
        "checksum": {"fletcher32": True, "chunks": True},
        "growing": {"maxshape": (None,) * values.ndim, "chunks": True},
        "small chunks": {"chunks": (1,) * values.ndim if values.size < 5000 else (1, *values.shape[1:])},
    }
    way = rng.choice(list(ways))
    del file[key]
    file.create_dataset(key, data=values, **ways[way])
    return Mutation(f"stored {way}", key, "same")


def _huge(rng: random.Random, file: h5py.File) -> Mutation:
    """Arrays that declare more than fits into memory, in a file of some kilobytes."""
    way, count = rng.choice(["all", "one", "wide"]), 3_000_000
    names = [n for n in ("patterns", "positions", "dose", "defocus", "requested", "phase_in_field", "potential") if n in file]
    for name in names if way == "all" else names[:1]:
        old = file[name]
        kind = old.dtype
        wide = (*old.shape[:-2], 60_000, 60_000) if old.ndim > 1 else (4_000_000_000,)
        shape = wide if way == "wide" else (count, *old.shape[1:])
        del file[name]
        chunks = tuple(min(n, 64) for n in shape)
        file.create_dataset(name, shape, kind, chunks=chunks, compression="gzip", fillvalue=kind.type(1))
    return Mutation(f"huge {way}", json.dumps(names), "refused")
