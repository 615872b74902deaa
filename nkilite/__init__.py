"""NKI on any CPU."""
from nkilite.runtime.kernel import jit, simulate
