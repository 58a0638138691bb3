"""``ctuq export``: a volume's mean and standard deviation for other programs."""

from ctuq.app.folder import RESULTS, held_folder
from ctuq.app.options import Export
from ctuq.app.terminal import give, say
from ctuq.app.volumes import write_tiffs
from ctuq.errors import InputError
from ctuq.records import kind_of
from ctuq.uncertainty.results.omezarr import write_ome_zarr
from ctuq.uncertainty.results.volume import KIND, VolumeResult


def export(command: Export) -> int:
    """Write slab by slab what the results file of a folder holds."""
    path, out = command.folder / RESULTS, command.output
    if not path.is_file():
        raise InputError(f"There is no {RESULTS} in {command.folder}; name the folder that ctuq reconstruct wrote.")
    if kind_of(path) != KIND:
        raise InputError(f"'{path}' is of one slice, whose mean.tif and std.tif lie beside it; only volumes are exported.")
    with VolumeResult.open(path) as result:
        if out.suffix.lower() == ".zarr":
            write_ome_zarr(result, out)
        elif any((out / name).exists() for name in ("mean.tif", "std.tif")):
            raise InputError(f"'{out}' holds a mean.tif or std.tif already; choose another folder.")
        elif out.is_file():
            raise InputError(f"'{out}' is a file; name a folder for mean.tif and std.tif, or OUT.zarr.")
        else:
            with held_folder(out):
                write_tiffs(result, out)
        kinds = " and ".join(name for name in ("mean", "std") if name in result.images)
        sizes = " x ".join(f"{pitch:.4g}" for pitch in result.pitches[::-1])
    give(output=out)
    say(f"Written: {out}, {kinds} of voxels of {sizes} mm (x, y, z) in 1/mm.")
    return 0
