"""Scan policies, one file each: who decides where the beam goes next."""
