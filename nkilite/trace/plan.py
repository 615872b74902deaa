"""What running an instruction by its reference rule asks of its signature, found once for all that have it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from nkilite.ir import limits
from nkilite.ir.coverage import runs_on_tensor_engine
from nkilite.ir.partitions import require_rows
from nkilite.ir.program import IMMEDIATE, Program, Signature
from nkilite.ir.types import MemoryRegion, ViewType
from nkilite.location import Location
from nkilite.trace.tensor import NkiTensor

_INDEX = ".index"


class Plan:
    """Of one signature of a program.

    Attributes:
        reference: its reference rule.
        rows_of: the arguments of whose runtime indices the rule wants to know, as `NAME_rows`.
        given: the arguments that a call has a value for, in order, and whether it is a tensor.
        operands: with the argument that has each, and whether it is the runtime index of that.
        written: the arguments that it writes.
        accumulates: whether it asks what was written before.
        tensor_engine: whether it writes PSUM as instructions of the Tensor Engine do.
        shared: whether it has operands in shared HBM.
        orders: whether other cores see that it runs: it writes shared HBM, or prints.
    """

    __slots__ = (
        "_on_chip", "_placed", "_signature", "accumulates", "given", "operands", "orders", "reference",
        "rows_of", "shared", "tensor_engine", "written",
    )

    def __init__(self, program: Program, signature: Signature) -> None:
        self._signature, arguments = signature, signature.arguments
        self.reference = signature.definition.rule("reference")
        wanted = inspect.signature(self.reference).parameters
        self.rows_of = frozenset(name for name in arguments if f"{name}_rows" in wanted)
        self.given = tuple(
            (name, isinstance(kind, ViewType)) for name, kind in arguments.items()
            if isinstance(kind, ViewType) or kind is IMMEDIATE
        )
        self.operands = tuple((o, o.name.removesuffix(_INDEX), o.name.endswith(_INDEX)) for o in signature.operands)
        self.written = tuple(o.name for o in signature.operands if o.writes)
        self.accumulates = arguments.get("accumulate", False) is not False
        self.tensor_engine = runs_on_tensor_engine(signature)
        shared = [o for o in signature.operands if o.type.region is MemoryRegion.shared_hbm]
        self.shared = bool(shared)
        self.orders = any(o.writes for o in shared) or signature.name == "device_print"
        starts = {
            o.name: allowed for o, allowed in limits.partition_rules(signature)
            if not limits.is_brought(program, signature, o)
        }
        self._on_chip = tuple(
            (o, starts.get(o.name)) for o in signature.operands
            if o.type.region.on_chip and o.name in arguments
        )
        self._placed: set[tuple[object, ...]] = set()  # what is known to start where it may

    def require_partitions(self, tensors: Mapping[str, NkiTensor], location: Location) -> None:
        """Check which partitions the operands of a call cover (nkilite/ir/partitions.py, nkilite/ir/limits.py)."""
        placed = self._placed
        for operand, allowed in self._on_chip:
            tensor = tensors[operand.name]
            buffer, offset = tensor.storage, tensor.byte_offset
            place = operand.name, buffer.type, buffer.address, offset
            if place not in placed:
                require_rows(self._signature, operand, buffer, offset, location)
                if allowed is not None:
                    limits.require_partitions(self._signature, operand, allowed, buffer, offset, location)
                placed.add(place)
