"""Scan strategies judged at equal dose: protocols, specimens never tuned on, statistics."""
