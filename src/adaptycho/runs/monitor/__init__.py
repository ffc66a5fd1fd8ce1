"""A page in the browser that shows a scan while it runs, and takes orders to it (extra `monitor`).

It reads the run folder and writes orders into it (`adaptycho.runs.orders`); a scan knows nothing of it.
"""
