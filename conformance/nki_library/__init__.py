"""The test suite of nki-library, as it is, with nkilite in the place of the vendor's simulator and chips.

``python -m conformance nki-library`` fetches the library at a fixed commit, runs its tests marked ``fast`` file by file
and keeps the outcome of every test, so that a run that ends can be gone on with. What the public repository lacks is in
``stand_ins``; nothing of the library is stored here.
"""
