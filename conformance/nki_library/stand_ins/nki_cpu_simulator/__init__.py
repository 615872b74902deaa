"""In the place of the vendor's simulator: each of its modules is nkilite's.

The harness imports nki_cpu_simulator.nki and modules below it, and makes them nki and its modules.
"""

import importlib
import sys

from nkilite import compat

compat.install()
for _name, _module in list(sys.modules.items()):
    if _name == "nki" or _name.startswith("nki."):
        sys.modules[f"{__name__}.{_name}"] = _module
nki = importlib.import_module("nki")
