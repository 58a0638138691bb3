"""Lazy linear algebra on batches of torch tensors."""

from ctuq.linops.operator import LinearOperator, Space

__all__ = ["LinearOperator", "Space"]
