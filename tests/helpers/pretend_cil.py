"""A stand-in for what ctuq uses of the Core Imaging Library, which PyPI has not: geometries, data, a processor, an operator."""

from types import ModuleType, SimpleNamespace

import numpy as np


class Data:
    def __init__(self, geometry, array):
        self.geometry, self.array = geometry, array

    def as_array(self):
        return self.array

    def fill(self, values):
        assert values.shape == self.array.shape
        self.array[...] = values


class ImageGeometry:
    def __init__(self, *, voxel_num_x, voxel_num_y, voxel_size_x, voxel_size_y, center_x, center_y):
        self.shape, self.voxel = (voxel_num_y, voxel_num_x), voxel_size_x
        assert voxel_size_x == voxel_size_y
        self.centre = (center_x, center_y)

    def allocate(self, value):
        return Data(self, np.zeros(self.shape, np.float32))


class AcquisitionGeometry:
    def __init__(self, kind, system):
        self.geom_type = kind
        self.config = SimpleNamespace(system=system, panel=None, angles=None)
        self.dimension_labels = ("angle", "horizontal")

    @classmethod
    def create_Parallel2D(cls, ray_direction, detector_position, detector_direction_x, rotation_axis_position=(0, 0)):
        ray = SimpleNamespace(direction=ray_direction)
        return cls("parallel", _system(detector_position, detector_direction_x, rotation_axis_position, ray=ray))

    @classmethod
    def create_Cone2D(cls, source_position, detector_position, detector_direction_x, rotation_axis_position=(0, 0)):
        source = SimpleNamespace(position=source_position)
        return cls("cone", _system(detector_position, detector_direction_x, rotation_axis_position, source=source))

    def set_angles(self, angles, initial_angle=0, angle_unit="degree"):
        self.config.angles = SimpleNamespace(angle_data=angles, initial_angle=initial_angle, angle_unit=angle_unit)
        return self

    def set_panel(self, columns, pixel_size, origin="bottom-left"):
        self.config.panel = SimpleNamespace(num_pixels=(columns, 1), pixel_size=pixel_size, origin=origin)
        return self

    def set_labels(self, labels):
        self.dimension_labels = tuple(labels)
        return self

    def allocate(self, value):
        return Data(self, np.zeros((len(self.config.angles.angle_data), self.config.panel.num_pixels[0]), np.float32))


def _system(detector, across, axis, **more):
    return SimpleNamespace(
        detector=SimpleNamespace(position=detector, direction_x=across), rotation_axis=SimpleNamespace(position=axis), **more
    )


class Processor:
    """Knows no attributes but those that it begins with, as CIL's."""

    def __init__(self, **attributes):
        self.__dict__.update(attributes | {"input": None, "output": None})

    def __setattr__(self, name, value):
        if name not in self.__dict__:
            raise KeyError(f"Attribute {name} not found")
        self.__dict__[name] = value

    def set_input(self, dataset):
        assert self.check_input(dataset)
        self.__dict__["input"] = dataset

    def get_input(self):
        return self.input

    def get_output(self, out=None):
        if out is None:
            return self.process()
        self.process(out=out)
        return out


class LinearOperator:
    def __init__(self, domain_geometry, range_geometry):
        self.domain_geometry, self.range_geometry = domain_geometry, range_geometry


def install(monkeypatch):
    """Put the stand-in where ``import cil.framework`` finds it."""
    import sys

    framework, operators = ModuleType("cil.framework"), ModuleType("cil.optimisation.operators")
    for name in (ImageGeometry, AcquisitionGeometry, Processor):
        setattr(framework, name.__name__, name)
    operators.LinearOperator = LinearOperator
    cil, optimisation = ModuleType("cil"), ModuleType("cil.optimisation")
    cil.framework, cil.optimisation, optimisation.operators = framework, optimisation, operators
    for module in (cil, framework, optimisation, operators):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def astra_vectors(made):
    """Of each view the ray or source, the detector's centre and the step along columns, as CIL hands them to ASTRA.

    In ASTRA's frame, where y is minus CIL's; the angles turn them counter-clockwise there.
    """
    system, panel, angles = made.config.system, made.config.panel, made.config.angles
    first = system.ray.direction if made.geom_type == "parallel" else system.source.position
    axis = np.asarray(system.rotation_axis.position, float)
    step = panel.pixel_size[0] * np.asarray(system.detector.direction_x, float) * (-1 if "right" in panel.origin else 1)
    place = np.asarray(system.detector.position, float) - axis
    first = np.asarray(first, float) - (0 if made.geom_type == "parallel" else axis)
    flip, rows = np.array([1, -1]), []
    for angle in np.deg2rad(np.asarray(angles.angle_data) + angles.initial_angle):
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        rows.append(np.concatenate([turn @ (flip * first), turn @ (flip * place), turn @ (flip * step)]))
    return np.array(rows)
