"""poold: Python workers behind local services. `from poold import worker` to write one, `poold.client` to call one."""

__version__ = "0.1.0"
