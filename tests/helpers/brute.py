"""Conditioning from scratch, to compare with."""

import torch


def matrices(rows):
    """``A_v`` of every view, dense."""
    return [rows.view(v).to_dense() for v in range(rows.views)]


def conditioned(S, rows, precision, views):
    """The covariance given some views from scratch: in information form, ``(S^-1 + A^T D A)^-1``."""
    information = torch.linalg.inv(S)
    for v in views:
        A = matrices(rows)[v]
        information = information + A.T @ (precision[v][:, None] * A)
    return torch.linalg.inv(information)
