"""A debugger of kernels: `nkilite debug`, or `nki.simulate(kernel, watch=nkilite.debugger.Debugger())`."""

from nkilite.debugger.session import Debugger, Quit
from nkilite.trace.watching import Stop

__all__ = ["Debugger", "Quit", "Stop"]
