"""Run folders: everything a scan was told and recorded, and enough to go on after a power cut."""
