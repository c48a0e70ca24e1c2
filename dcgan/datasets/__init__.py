"The data sets: `from dcgan.datasets import load`."
from .sources import load

__all__ = ["load"]
