"""A small sound file of every format, and what a user would do with it."""

import importlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import scipy.io
import scipy.sparse as sp
import tifffile
from skimage.io import imsave

from ctuq.design.session.file import Settings
from ctuq.design.session.session import Session
from ctuq.files import write_scan, write_volume_scan
from ctuq.files.formats.hdf5.nxfile import write_nxtomo
from ctuq.pipeline.running.checkpoint import Checkpoint
from ctuq.stages import write_tree
from ctuq.tomo.geometry import FanBeam, ParallelBeam, VolumeGrid
from ctuq.tomo.rays.entries import build_matrix
from ctuq.tomo.scan import Provenance, Scan
from ctuq.tomo.space import ConeBeam
from ctuq.tomo.volume_scan import VolumeScan
from ctuq.uncertainty.results.contents import Calibration
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import VolumeResult
from experiments.fuzz import probe
from experiments.fuzz.compound import write_compound

VIEWS, ROWS, COLUMNS, BEAM = 6, 3, 10, 20000
DEGREES = np.arange(VIEWS) * 30.0
_GEOMETRY = "kind: parallel\npixel: 0.5\naxis_column: 4.5\nangles: {first: 0, step: 30, count: 6}\n"
_LOG = _GEOMETRY + "values: log\n"


@dataclass(frozen=True)
class Format:
    """How a sound file is made, read and damaged.

    Parameters
    ----------
    make : callable
        Writes into a folder; returns the file's name.
    damaged : str
        Which file is damaged, if not that one.
    structure : str
        How its inside can be changed: "hdf5", "record" (HDF5 of ours, sealed again), "npz", "text" or "bytes".
    checked : bool
        Whether the format has a checksum, so that no flipped byte may pass.
    look : callable
        Reads the file; returns what is to stay the same, and the warnings.
    """

    make: Callable[[Path], str]
    structure: str
    checked: bool = False
    damaged: str = ""
    look: Callable[[Path], tuple[str, set[str]]] = probe.scan


def projections() -> np.ndarray:
    """Line integrals of a disc with a dent, (view, column)."""
    x = np.arange(COLUMNS) - 4.5
    disc = np.sqrt(np.maximum(16 - x**2, 0)) / 8
    return (disc + 0.05 * np.sin(x + np.deg2rad(DEGREES)[:, None]) * (disc > 0)).astype(np.float32)


def _counts() -> np.ndarray:
    return np.repeat(np.round(BEAM * np.exp(-projections()) + 100)[:, None], ROWS, axis=1).astype(np.uint16)


def _scan() -> Scan:
    geometry = ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=0.5)
    told = Provenance("made up", "ab" * 32, ("first",), {"sample": "disc"})
    grid = VolumeGrid((4, 4), 1.0)
    return Scan(projections(), geometry, np.ones(geometry.shape, np.float32), np.ones((4, 4), np.float32), grid, told)


def _own(folder: Path) -> str:
    write_scan(_scan(), folder / "a.h5")
    return "a.h5"


def _volume() -> VolumeScan:
    geometry = ConeBeam(
        angles=np.deg2rad(DEGREES), rows=3, columns=COLUMNS, pixel=0.5, source_to_axis=20.0, source_to_detector=40.0
    )
    values = np.repeat(projections()[None], 3, axis=0)
    told = Provenance("made up", "ab" * 32, ("first",), {"sample": "disc"})
    grid = VolumeGrid((2, 4, 4), 1.0)
    return VolumeScan(values, geometry, np.ones(geometry.shape), np.ones(grid.shape), grid, told)


def _own_volume(folder: Path) -> str:
    write_volume_scan(_volume(), folder / "a.h5")
    return "a.h5"


def _volume_result(folder: Path) -> str:
    scan = _volume()
    found = VolumeResult(
        mean=np.ones((2, 4, 4), np.float32),
        grid=VolumeGrid((2, 4, 4), 1.0),
        geometry=scan.geometry,
        method="dip",
        provenance=scan.provenance,
        std=np.full((2, 4, 4), 0.1, np.float32),
        truth=scan.truth,
        scores={"psnr": 20.0},
        timings={"dip": 1.0},
        settings={"size": 4},
        versions={"ctuq": "0"},
        warnings=("A doubt.",),
        history={"iteration": np.arange(3), "loss": np.ones(3), "held_out_loss": np.ones(3)},
        held_views=np.array([1]),
        samples=np.ones((2, 2, 4, 4), np.float32),
    )
    found.save(folder / "results.h5")
    return "results.h5"


def _own_nxtomo(folder: Path) -> str:
    write_nxtomo(_scan(), folder / "a.nxs")
    return "a.nxs"


def _result(folder: Path) -> str:
    rng = np.random.default_rng(0)
    beam = FanBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=0.5, source_to_axis=100, source_to_detector=150)
    image = rng.uniform(0, 1, (4, 4)).astype(np.float32)
    scores, predictions = {"rms_z": 1.0}, rng.uniform(0.5, 1, (4, 1, COLUMNS)).astype(np.float32)
    held = Calibration((1,), 1.5, 0.7, 0.2, 0.3, scores, scores, predictions)
    told = {"timings": {"fit": 1.0}, "settings": {"size": 4}, "versions": {"ctuq": "0.1.0"}, "warnings": ("one",)}
    Result(
        image,
        Scan(projections(), beam, provenance=Provenance("made up")),
        VolumeGrid((4, 4), 1.0),
        "dip",
        std=image,
        std_raw=image,
        samples=np.stack([image] * 2),
        sigma2=1e-3,
        calibration=held,
        **told,
    ).save(folder / "results.h5")
    return "results.h5"


def _session(folder: Path) -> str:
    geometry = ParallelBeam(angles=np.deg2rad(DEGREES), columns=COLUMNS, pixel=1.0)
    session = Session.start(folder / "s.h5", geometry, Settings(size=4, prior="isotropic", pilot=2))
    session.tell(session.ask().angles[:1], projections()[:1])
    return "s.h5"


def _checkpoint(folder: Path) -> str:
    Checkpoint(folder / "checkpoint.h5", "data", {"size": 4}).begin()
    return "checkpoint.h5"


def _stage(folder: Path) -> str:
    write_tree(folder / "stage.npz", {"identity": "a", "seconds": 1.0, "value": {"x": projections(), "n": 3}})
    return "stage.npz"


def _npz(folder: Path) -> str:
    np.savez(
        folder / "a.npz",
        sinogram=projections(),
        angles_deg=DEGREES,
        kind="parallel",
        pixel=0.5,
        values="log",
        weights=np.ones((VIEWS, COLUMNS)),
        detector_offset=0.1,
    )
    return "a.npz"


def _npy(folder: Path) -> str:
    np.save(folder / "a.npy", projections())
    (folder / "a.yaml").write_text(_LOG)
    return "a.npy"


def _problem(folder: Path) -> str:
    grid = VolumeGrid((6, 6), 1.0)
    beam = ParallelBeam(angles=np.deg2rad(DEGREES) - np.pi / 2, columns=COLUMNS, pixel=np.hypot(6, 6) / COLUMNS)
    A = sp.csr_array(build_matrix(grid, beam))
    image = np.zeros((6, 6), np.float32)
    image[1:5, 2:5] = 1
    parts = {"A_data": A.data, "A_indices": A.indices, "A_indptr": A.indptr, "A_shape": A.shape}
    sinogram = (A @ image.ravel()).reshape(VIEWS, COLUMNS)
    np.savez(folder / "a.npz", image=image, angles=np.deg2rad(DEGREES), sinogram=sinogram, **parts)
    return "a.npz"


def _dxchange(folder: Path) -> str:
    with h5py.File(folder / "a.h5", "w") as file:
        file["exchange/data"] = _counts()
        file["exchange/data_white"] = np.full((2, ROWS, COLUMNS), BEAM + 100, np.uint16)
        file["exchange/data_dark"] = np.full((2, ROWS, COLUMNS), 100, np.uint16)
        file["exchange/theta"] = DEGREES
        file["exchange/theta"].attrs["units"] = "degrees"
        file["measurement/sample/name"] = "disc"
        file["measurement/instrument/detector/actual_pixel_size_x"] = 500.0
        file["measurement/instrument/detector/actual_pixel_size_x"].attrs["units"] = "um"
    (folder / "a.yaml").write_text("axis_column: 4.5\n")
    return "a.h5"


def _nxtomo(folder: Path) -> str:
    frames = np.concatenate([np.full((1, ROWS, COLUMNS), 100), np.full((1, ROWS, COLUMNS), BEAM + 100), _counts()])
    with h5py.File(folder / "a.nxs", "w") as file:
        entry = file.create_group("entry")
        entry.attrs["NX_class"] = "NXentry"
        entry["definition"] = "NXtomo"
        entry["instrument/detector/data"] = frames.astype(np.uint16)
        entry["instrument/detector/image_key"] = np.r_[2, 1, np.zeros(VIEWS, int)]
        entry["instrument/detector/x_pixel_size"] = 5e-4
        entry["instrument/detector/x_pixel_size"].attrs["units"] = "m"
        entry["instrument/detector/x_rotation_axis_pixel_position"] = 4.5
        entry["sample/name"] = "disc"
        entry["sample/rotation_angle"] = np.r_[0, 0, DEGREES]
        entry["sample/rotation_angle"].attrs["units"] = "degree"
        entry["data/data"] = entry["instrument/detector/data"]
    return "a.nxs"


def _cil(folder: Path) -> str:
    with h5py.File(folder / "a.nxs", "w") as file:
        node = file.create_dataset("entry1/tomo_entry/data/data", data=projections())
        node.attrs.update({"data_type": "AcquisitionData", "geometry": "cone", "panel_origin": "bottom-left"})
        node.attrs.update({"pixel_size_h": 0.5, "pixel_size_v": 0.5, "dim0": "angle", "dim1": "horizontal"})
        config = file.create_group("entry1/tomo_entry/config")
        config["angles"] = DEGREES.astype(np.float32)
        config["angles"].attrs.update({"angle_unit": "degree", "initial_angle": 0.0})
        for name, place in {"source": (0, -80, 0), "detector": (0, 120, 0), "rotation_axis": (0, 0, 0)}.items():
            config[f"{name}/position"] = np.asarray(place, np.float32)
        config["detector/direction_x"] = np.asarray((1, 0, 0), np.float32)
    (folder / "a.yaml").write_text("values: log\n")
    return "a.nxs"


def _matlab5(folder: Path) -> str:
    struct_ = {
        "sinogram": projections().astype(float),
        "parameters": {
            "angles": DEGREES,
            "distanceSourceOrigin": 100.0,
            "distanceSourceDetector": 150.0,
            "pixelSizePost": 0.5,
            "projectName": "disc",
        },
    }
    scipy.io.savemat(folder / "a.mat", {"CtDataFull": struct_}, do_compression=True)
    return "a.mat"


def _matlab73(folder: Path) -> str:
    with h5py.File(folder / "a.mat", "w", userblock_size=512) as file:
        file["sinogram"] = projections().astype(float)
        file["sinogram"].attrs["MATLAB_class"] = np.bytes_("double")
    (folder / "a.yaml").write_text(_LOG)
    return "a.mat"


def _tiff(folder: Path) -> str:
    tifffile.imwrite(folder / "a.tif", _counts(), photometric="minisblack")
    (folder / "a.yaml").write_text(_GEOMETRY + "values: counts\nflat: 20100\ndark: 100\nstack: projections\n")
    return "a.tif"


def _tiff_packed(folder: Path) -> str:
    tifffile.imwrite(folder / "a.tif", projections(), compression="zlib", photometric="minisblack")
    # The only one whose axis is searched, which takes longer than all else: damage rarely gets through the compression.
    (folder / "a.yaml").write_text(_LOG.replace("axis_column: 4.5\n", ""))
    return "a.tif"


def _png(folder: Path) -> str:
    imsave(folder / "a.png", _counts()[:, 0], check_contrast=False)
    (folder / "a.yaml").write_text(_GEOMETRY + "values: counts\nflat: 20100\ndark: 100\n")
    return "a.png"


def _fits(folder: Path) -> str:
    fits = importlib.import_module("astropy.io.fits")
    fits.PrimaryHDU(_counts()).writeto(folder / "a.fits")
    (folder / "a.yaml").write_text(_GEOMETRY + "values: counts\nflat: 20100\ndark: 100\nstack: projections\n")
    return "a.fits"


def _yaml(folder: Path) -> str:
    np.save(folder / "a.npy", np.repeat(projections()[:, None], ROWS, axis=1))
    about = "sample: disc\ninstrument: none\nclockwise: false\ntranspose: false\nscale: 1.0\nrow: 1\nbad_columns: [3]\n"
    (folder / "a.yaml").write_text(_LOG + about)
    return "a.npy"


def _mrc(folder: Path) -> str:
    header = np.zeros(256, "<i4")
    header[:4], header[7:10] = (COLUMNS, ROWS, VIEWS, 2), (COLUMNS, ROWS, VIEWS)
    header[10:13] = np.asarray([COLUMNS * 5e6] * 3, "<f4").view("<i4")
    header[52], header[53] = struct.unpack("<ii", b"MAP DD\x00\x00")
    values = np.repeat(projections()[:, None], ROWS, axis=1)
    (folder / "a.mrc").write_bytes(header.tobytes() + values.astype("<f4").tobytes())
    (folder / "a.rawtlt").write_text("\n".join(map(str, DEGREES)))
    (folder / "a.yaml").write_text("kind: parallel\nvalues: log\naxis_column: 4.5\n")
    return "a.mrc"


def _edf(folder: Path) -> str:
    values = projections()
    about = "{\nByteOrder = LowByteFirst ;\nDataType = FloatValue ;\n"
    about += f"Dim_1 = {COLUMNS} ;\nDim_2 = {VIEWS} ;\nSize = {values.nbytes} ;\n"
    header = about + " " * (510 - len(about)) + "}\n"
    (folder / "a.edf").write_bytes(header.encode() + values.astype("<f4").tobytes())
    (folder / "a.yaml").write_text(_LOG)
    return "a.edf"


def _folder_of_tiff(folder: Path, name: str) -> None:
    for number, picture in enumerate(_counts()):
        tifffile.imwrite(folder / name.format(number), picture)


def _nikon(folder: Path) -> str:
    _folder_of_tiff(folder, "A_{:04d}.tif")
    keys = {"Name": "A", "Projections": VIEWS, "WhiteLevel": BEAM, "DetectorPixelsX": COLUMNS, "DetectorPixelsY": ROWS}
    keys |= {"DetectorPixelSizeX": 0.5, "DetectorPixelSizeY": 0.5, "SrcToObject": 80, "SrcToDetector": 200}
    keys |= {"InitialAngle": 0, "AngularStep": 30, "DetectorOffsetX": 0.1, "ObjectOffsetX": 0.0}
    (folder / "A.xtekct").write_text("[XTekCT]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()))
    return "A.xtekct"


def _walnuts(folder: Path) -> str:
    for number, picture in enumerate(_counts()):
        tifffile.imwrite(folder / f"scan_{VIEWS - 1 - number:06d}.tif", np.asarray(picture).T[::-1])
        tifffile.imwrite(folder / "io000000.tif", np.full_like(np.asarray(picture).T, BEAM))
    angles = np.deg2rad(DEGREES)
    beam = ConeBeam(angles=angles, rows=ROWS, columns=COLUMNS, pixel=0.5, source_to_axis=80.0, source_to_detector=200.0)
    np.savetxt(folder / "scan.geom", beam.vectors())
    return "scan.geom"


def _skyscan(folder: Path) -> str:
    _folder_of_tiff(folder, "A{:04d}.tif")
    keys = {"Scanner": "SkyScan1173", "Filename Prefix": "A", "Number of Files": VIEWS, "Number of Rows": ROWS}
    keys |= {"Number of Columns": COLUMNS, "Image Pixel Size (um)": 200.0, "Object to Source (mm)": 80.0, "Depth (bits)": 16}
    keys |= {"Camera to Source (mm)": 200.0, "Optical Axis (line)": 1, "Rotation Step (deg)": 30.0}
    keys |= {"Flat Field Correction": "ON", "Rotation Direction": "CC"}
    (folder / "A.log").write_text("[System]\n" + "".join(f"{key}={value}\n" for key, value in keys.items()))
    (folder / "A.yaml").write_text("axis_column: 4.5\n")
    return "A.log"


def _zeiss(folder: Path) -> str:
    numbers = {"NoOfImages": VIEWS, "ImagesTaken": VIEWS, "ImageWidth": COLUMNS, "ImageHeight": ROWS, "DataType": 5}
    numbers |= {"AcquisitionMode": 0, "XrayGeometry": 1}
    streams = {f"ImageInfo/{name}": struct.pack("<i", number) for name, number in numbers.items()}
    streams["ImageInfo/PixelSize"] = struct.pack("<f", 200.0)
    many = {"Angles": DEGREES, "StoRADistance": np.full(VIEWS, -80.0), "DtoRADistance": np.full(VIEWS, 120.0)}
    streams |= {f"ImageInfo/{name}": value.astype("<f4").tobytes() for name, value in many.items()}
    streams |= {f"Alignment/{axis}-Shifts": np.linspace(-0.4, 0.4, VIEWS).astype("<f4").tobytes() for axis in "XY"}
    streams["ReferenceData/Image"] = np.full((ROWS, COLUMNS), BEAM + 100, "<u2").tobytes()
    streams |= {"ReferenceData/DataType": struct.pack("<i", 5), "SampleInfo/SampleID": b"disc\0"}
    streams |= {f"ImageData1/Image{number + 1}": view.astype("<u2").tobytes() for number, view in enumerate(_counts())}
    write_compound(folder / "a.txrm", streams)
    (folder / "a.yaml").write_text("axis_column: 4.5\n")
    return "a.txrm"


FORMATS: dict[str, Format] = {
    "ctuq scan": Format(_own, "record", checked=True),
    "volume scan": Format(_own_volume, "record", checked=True, look=probe.volume_scan),
    "volume result": Format(_volume_result, "record", checked=True, look=probe.volume_result),
    "ctuq NXtomo": Format(_own_nxtomo, "record", checked=True),
    "ctuq result": Format(_result, "record", checked=True, look=probe.result),
    "ctuq session": Format(_session, "record", checked=True, look=probe.session),
    "ctuq checkpoint": Format(_checkpoint, "record", checked=True, look=probe.checkpoint),
    "ctuq stage": Format(_stage, "npz", checked=True, look=probe.stage),
    "npz": Format(_npz, "npz", checked=True),
    "npz problem": Format(_problem, "npz", checked=True),
    "npy": Format(_npy, "bytes"),
    "DXchange": Format(_dxchange, "hdf5"),
    "NXtomo": Format(_nxtomo, "hdf5"),
    "CIL": Format(_cil, "hdf5"),
    "MATLAB 5": Format(_matlab5, "bytes"),
    "MATLAB 7.3": Format(_matlab73, "hdf5"),
    "TIFF": Format(_tiff, "bytes"),
    "TIFF zlib": Format(_tiff_packed, "bytes"),
    "PNG": Format(_png, "bytes", checked=True),
    "FITS": Format(_fits, "bytes"),
    "MRC": Format(_mrc, "bytes"),
    "EDF": Format(_edf, "text"),
    "Nikon": Format(_nikon, "text"),
    "SkyScan": Format(_skyscan, "text"),
    "walnuts": Format(_walnuts, "text"),
    "Zeiss": Format(_zeiss, "bytes"),
    "geometry file": Format(_yaml, "text", damaged="a.yaml"),
}
