"""Specimens and windows of recordings with what is known about them, to judge and to learn on."""
