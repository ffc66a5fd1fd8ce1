"""adaptycho: adaptive ptychography. It decides, while the scan runs, where the next electrons go."""
