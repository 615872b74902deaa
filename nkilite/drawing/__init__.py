"""Pictures of a kernel: what every instruction reads and writes in HBM, SBUF and PSUM, to step through in a browser."""

from nkilite.drawing.page import Drawing, draw

__all__ = ["Drawing", "draw"]
