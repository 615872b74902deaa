"""Decorators of older releases that steer the vendor's compiler; kernels are what they were."""

from __future__ import annotations

from typing import Any

__all__ = ["AS_WRITTEN", "enable_stack_allocator", "force_auto_alloc", "skip_middle_end_transformations"]

AS_WRITTEN = "__nki_as_written__"  # the attribute of functions that skip_middle_end_transformations decorates


def _directive(function: object) -> object:
    return (lambda decorated: decorated) if function is None else function


def skip_middle_end_transformations(func: object = None, **_: object) -> Any:
    """Returns the kernel as it is; profiles take its instructions as written."""
    if func is None:
        return skip_middle_end_transformations
    setattr(getattr(func, "function", func), AS_WRITTEN, True)
    return func


def enable_stack_allocator(func: object = None, **_: object) -> Any:
    """Returns the kernel as it is: the planner places tiles by their lives."""
    return _directive(func)


def force_auto_alloc(func: object = None, **_: object) -> Any:
    """Returns the kernel as it is; addresses that it gives are followed."""
    return _directive(func)
