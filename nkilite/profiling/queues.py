"""The queues of the timing model: those of an engine that computes, and those that trigger DMAs, on every core."""

from __future__ import annotations

from nkilite.machine.engine import Engine

__all__ = [
    "COLLECTIVES",
    "FIRST_TRIGGER",
    "HARDWARE_SCALAR",
    "HARDWARE_SYNC",
    "LOADS",
    "PER_CORE",
    "QUEUES",
    "SOFTWARE",
    "STORES",
    "named_on",
    "queue_name",
    "without_core",
]

# Queues are numbered by Engine for compute; DMA triggers have queues of their own. Those of a core follow those of the
# core before it.
LOADS, STORES, SOFTWARE, HARDWARE_SYNC, HARDWARE_SCALAR = range(10, 15)
FIRST_TRIGGER = LOADS
COLLECTIVES = 9  # that the collective-communication cores carry out, one after the other
PER_CORE = 16
QUEUES: dict[int, str] = {
    Engine.tensor.value: "Tensor",
    Engine.vector.value: "Vector",
    Engine.scalar.value: "Scalar",
    Engine.gpsimd.value: "GpSimd",
    Engine.sync.value: "Sync",
    COLLECTIVES: "Collectives",
    LOADS: "DMA loads (Sync)",
    STORES: "DMA stores (GpSimd)",
    SOFTWARE: "DMA (GpSimd DGE)",
    HARDWARE_SYNC: "DMA (Sync DGE)",
    HARDWARE_SCALAR: "DMA (Scalar DGE)",
}


def queue_name(queue: int, cores: int) -> str:
    """How reports name a queue of a launch on so many cores."""
    return named_on(QUEUES[queue % PER_CORE], queue // PER_CORE, cores)


def named_on(name: str, core: int, cores: int) -> str:
    """A name of something that every core has."""
    return f"{name} (core {core})" if cores > 1 else name


def without_core(name: str) -> str:
    """The name of an engine or a queue on whatever core."""
    return name.partition(" (core")[0]
