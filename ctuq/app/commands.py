"""Which function does each command; its module is imported only when the command runs, as none needs what all others do."""

from importlib import import_module

from ctuq.app.arguments import Command
from ctuq.app.calibration.options import Calibrate
from ctuq.app.measure.options import Measure
from ctuq.app.options import Convert, Demo, Doctor, Export, Info, Reconstruct, Report, Simulate

_DOES: dict[type[Command], tuple[str, str]] = {
    Demo: ("ctuq.app.slices", "demo"),
    Info: ("ctuq.app.scans", "info"),
    Simulate: ("ctuq.app.scans", "simulate"),
    Convert: ("ctuq.app.conversion", "convert"),
    Reconstruct: ("ctuq.app.slices", "reconstruct"),
    Measure: ("ctuq.app.measure.command", "measure"),
    Calibrate: ("ctuq.app.calibration.command", "run_calibrate"),
    Report: ("ctuq.app.reporting", "write_anew"),
    Export: ("ctuq.app.export", "export"),
    Doctor: ("ctuq.app.doctor", "tell"),
}


def run(command: Command) -> int:
    """Do what was typed; the exit code."""
    module, name = _DOES[type(command)]
    return getattr(import_module(module), name)(command)
