"""Names for what checkers of this code cannot see: values of users, and objects of libraries that need not be there."""

from typing import Any, TypeAlias

#: What the user passes, returns or keeps: containers, records and leaves.
UserValue: TypeAlias = Any
#: An object of torch, jax or mpi4py.
Foreign: TypeAlias = Any
