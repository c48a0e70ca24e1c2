"Tests draw to files, never to a screen."
import os

os.environ.setdefault("MPLBACKEND", "Agg")
