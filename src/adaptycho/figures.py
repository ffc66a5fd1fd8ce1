"""Figures of an evaluation: quality against dose, positions and time, and reconstructions with their diffractograms (Fig. 4)."""
