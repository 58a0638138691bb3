"""A stand-in for tomosipo, which is not on PyPI: its vector geometries as its documentation has them, axes (z, y, x)."""

from types import SimpleNamespace

import numpy as np


def volume(*, shape, extent):
    low, high = np.array(extent, float).T
    return SimpleNamespace(shape=tuple(shape), pos=(low + high) / 2, voxel_size=(high - low) / np.array(shape))


class _Projection:
    def __init__(self, shape, det_pos, det_v, det_u, is_cone, **first):
        self.det_shape, self.is_cone = tuple(shape), is_cone
        self.det_pos, self.det_v, self.det_u = (np.asarray(a, float) for a in (det_pos, det_v, det_u))
        for name, value in first.items():
            setattr(self, name, np.asarray(value, float))

    def to_vec(self):
        return self

    def project_point(self, point):
        """(v, u) from the detector's middle, by solving for where the ray meets the detector."""
        point, found = np.asarray(point, float), []
        for view in range(len(self.det_pos)):
            ray = point - self.src_pos[view] if self.is_cone else self.ray_dir[view]
            equations = np.stack([self.det_v[view], self.det_u[view], -ray], axis=1)
            found.append(np.linalg.solve(equations, point - self.det_pos[view])[:2])
        return np.array(found)


def cone_vec(*, shape, src_pos, det_pos, det_v, det_u):
    return _Projection(shape, det_pos, det_v, det_u, True, src_pos=src_pos)


def parallel_vec(*, shape, ray_dir, det_pos, det_v, det_u):
    return _Projection(shape, det_pos, det_v, det_u, False, ray_dir=ray_dir)
