"""Joseph's method compiled by numba (extra ``volumes``): projection and exact transpose of one volume, no matrix.

Two pairs: of any vectors, ray by ray; and of detectors whose rows are stacked along z, where all rays of a column run through
the same line of the plane, so that its interpolation in x and y is done once for all rows (three times as quick). Each works on
a range of views and releases the interpreter, so that threads share the views.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit  # pyright: ignore[reportMissingImports]

# Sums may be taken in any order; but not "nnan" and "ninf": a NaN in the data is to come out as one.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract", "reassoc", "nsz", "arcp"}}


def _compiled(function: Callable) -> Any:
    """Compiled when it is first called, and kept for the next process where a folder can be written to."""
    try:
        return njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return njit(**_OPTIONS)(function)


@_compiled
def _ray(table, view, row, column, rows, columns, diverging):
    u, v = column - (columns - 1) * 0.5, row - (rows - 1) * 0.5
    t = table[view]
    x, y, z = t[3] + u * t[6] + v * t[9], t[4] + u * t[7] + v * t[10], t[5] + u * t[8] + v * t[11]
    if diverging:
        return t[0], t[1], t[2], x - t[0], y - t[1], z - t[2]
    return x, y, z, t[0], t[1], t[2]


@_compiled
def _stepped(ray, shape):
    """Start and direction along the major axis and the two others, with the sizes and strides of these axes."""
    x, y, z, dx, dy, dz = ray
    depth, height, width = shape
    plane = width * height
    ax, ay, az = abs(dx), abs(dy), abs(dz)
    if ax >= ay and ax >= az:
        return x, y, z, dx, dy, dz, width, height, depth, 1, width, plane
    if ay >= az:
        return y, x, z, dy, dx, dz, height, width, depth, width, 1, plane
    return z, x, y, dz, dx, dy, depth, width, height, plane, 1, width


@_compiled
def _any(volume, shape, table, diverging, rows, columns, voxel, first, last, out, transposed):
    for view in range(first, last):
        for row in range(rows):
            for column in range(columns):
                o0, o1, o2, d0, d1, d2, n0, n1, n2, s0, s1, s2 = _stepped(
                    _ray(table, view, row, column, rows, columns, diverging), shape
                )
                k1, k2 = d1 / d0, d2 / d0
                length = voxel * math.sqrt(1 + k1 * k1 + k2 * k2)
                value = out[row, view, column] * length
                total = 0.0
                for j in range(n0):
                    if diverging and (j - o0) * d0 <= 0:
                        continue
                    p, q = o1 + (j - o0) * k1, o2 + (j - o0) * k2
                    if not (-1 <= p < n1 and -1 <= q < n2):
                        continue
                    lp, lq = int(math.floor(p)), int(math.floor(q))
                    # Outside there is nothing: a weight of 0 at the nearest voxel.
                    a, b = (1 - (p - lp) if lp >= 0 else 0.0), (p - lp if lp + 1 < n1 else 0.0)
                    c, d = (1 - (q - lq) if lq >= 0 else 0.0), (q - lq if lq + 1 < n2 else 0.0)
                    left, right = j * s0 + max(lp, 0) * s1, j * s0 + min(lp + 1, n1 - 1) * s1
                    low, high = max(lq, 0) * s2, min(lq + 1, n2 - 1) * s2
                    if transposed:
                        volume[left + low] += value * a * c
                        volume[right + low] += value * b * c
                        volume[left + high] += value * a * d
                        volume[right + high] += value * b * d
                    else:
                        total += a * (c * volume[left + low] + d * volume[left + high])
                        total += b * (c * volume[right + low] + d * volume[right + high])
                if not transposed:
                    out[row, view, column] = total * length


@_compiled
def project_any(volume, shape, table, diverging, rows, columns, voxel, first, last, out):
    """Write the projections (row, view, column) of views ``first`` to ``last - 1`` of a flat volume (z, y, x)."""
    _any(volume, shape, table, diverging, rows, columns, voxel, first, last, out, False)


@_compiled
def back_project_any(out, shape, table, diverging, rows, columns, voxel, first, last, volume):
    """Add the back-projection of the same views to a flat volume."""
    _any(volume, shape, table, diverging, rows, columns, voxel, first, last, out, True)


@_compiled
def _column(table, view, column, columns, rows, diverging, shape):
    """A column's line in the plane: start and step along the major axis and the other, sizes, strides, and its heights.

    Heights at reach t: ``z + t * dz`` in row 0 and ``gap + t * spread`` from row to row.
    """
    x, y, z, dx, dy, dz = _ray(table, view, 0, column, rows, columns, diverging)
    depth, height, width = shape
    step = table[view, 11]
    gap, spread = (0.0, step) if diverging else (step, 0.0)
    if abs(dx) >= abs(dy):
        return x, y, dx, dy, width, height, depth, width * depth, z, dz, gap, spread
    return y, x, dy, dx, height, width, width * depth, depth, z, dz, gap, spread


@_compiled
def _rows_met(low, step, depth, rows):
    """Rows at the heights ``low + row * step`` that lie in [0, depth + 1), as a range."""
    a, b = -low / step, (depth + 1 - low) / step
    if step < 0:
        a, b = b, a
    first, last = min(max(a, 0.0), float(rows)), min(max(b, 0.0), float(rows))
    first, last = int(math.ceil(first)), int(math.ceil(last))
    # The ends by the very expression that the rows are placed with.
    while first < last and not 0 <= low + first * step < depth + 1:
        first += 1
    while last > first and not 0 <= low + (last - 1) * step < depth + 1:
        last -= 1
    return first, last


@_compiled
def project_upright(volume, shape, table, diverging, rows, columns, voxel, first, last, out):
    """Write the projections (view, column, row) of a flat volume (y, x, z), rows stacked along z."""
    depth = shape[0]
    line, between = np.zeros(rows, np.float32), np.zeros(depth + 2, np.float32)
    for view in range(first, last):
        for column in range(columns):
            o0, o1, d0, d1, n0, n1, s0, s1, z, dz, gap, spread = _column(table, view, column, columns, rows, diverging, shape)
            k = d1 / d0
            line[:] = 0
            for j in range(n0):
                p, t = o1 + (j - o0) * k, (j - o0) / d0
                if not -1 <= p < n1 or (diverging and t <= 0):
                    continue
                lp = int(math.floor(p))
                f = np.float32(p - lp)
                a = np.float32(1) - f if lp >= 0 else np.float32(0)
                b = f if lp + 1 < n1 else np.float32(0)
                at = j * s0 + max(lp, 0) * s1
                to = j * s0 + min(lp + 1, n1 - 1) * s1
                for i in range(depth):
                    between[i + 1] = a * volume[at + i] + b * volume[to + i]
                low, step = z + t * dz + 1, gap + t * spread
                start, stop = _rows_met(low, step, depth, rows)
                for row in range(start, stop):
                    place = low + row * step
                    i = int(place)
                    g = np.float32(place - i)
                    line[row] += (np.float32(1) - g) * between[i] + g * between[i + 1]
            for row in range(rows):
                rise = (dz + (row * table[view, 11] if diverging else 0.0)) / d0
                out[view, column, row] = line[row] * voxel * math.sqrt(1 + k * k + rise * rise)


@_compiled
def back_project_upright(out, shape, table, diverging, rows, columns, voxel, first, last, volume):
    """Add the back-projection of `project_upright` to a flat volume (y, x, z)."""
    depth = shape[0]
    line, between = np.zeros(rows, np.float32), np.zeros(depth + 2, np.float32)
    for view in range(first, last):
        for column in range(columns):
            o0, o1, d0, d1, n0, n1, s0, s1, z, dz, gap, spread = _column(table, view, column, columns, rows, diverging, shape)
            k = d1 / d0
            for row in range(rows):
                rise = (dz + (row * table[view, 11] if diverging else 0.0)) / d0
                line[row] = out[view, column, row] * voxel * math.sqrt(1 + k * k + rise * rise)
            for j in range(n0):
                p, t = o1 + (j - o0) * k, (j - o0) / d0
                if not -1 <= p < n1 or (diverging and t <= 0):
                    continue
                lp = int(math.floor(p))
                f = np.float32(p - lp)
                a = np.float32(1) - f if lp >= 0 else np.float32(0)
                b = f if lp + 1 < n1 else np.float32(0)
                at = j * s0 + max(lp, 0) * s1
                to = j * s0 + min(lp + 1, n1 - 1) * s1
                between[:] = 0
                low, step = z + t * dz + 1, gap + t * spread
                start, stop = _rows_met(low, step, depth, rows)
                for row in range(start, stop):
                    place = low + row * step
                    i = int(place)
                    g = np.float32(place - i)
                    between[i] += (np.float32(1) - g) * line[row]
                    between[i + 1] += g * line[row]
                for i in range(depth):
                    volume[at + i] += a * between[i + 1]
                for i in range(depth):
                    volume[to + i] += b * between[i + 1]
