"""``ctuq report``: the report and the pictures of a result, written anew."""

from ctuq.app.facts import facts_of_result, facts_of_volume
from ctuq.app.folder import RESULTS, held_folder
from ctuq.app.measure.table import remembered
from ctuq.app.options import Report
from ctuq.app.report.anew import image_report, volume_report
from ctuq.app.terminal import give, say
from ctuq.errors import InputError
from ctuq.records import kind_of
from ctuq.uncertainty.results.image import Result
from ctuq.uncertainty.results.volume import KIND as VOLUME
from ctuq.uncertainty.results.volume import VolumeResult


def write_anew(command: Report) -> int:
    """Write the report and the figures anew from the results file."""
    path = command.folder / RESULTS
    if not path.is_file():
        raise InputError(f"There is no {RESULTS} in {command.folder}; name the folder that ctuq reconstruct wrote.")
    with held_folder(command.folder):
        if kind_of(path) == VOLUME:
            with VolumeResult.open(path) as volume:
                facts, report = facts_of_volume(volume), volume_report(volume, command.folder, remembered(path))
        else:
            result = Result.load(path)
            facts, report = facts_of_result(result), image_report(result, command.folder, remembered(path))
    give(folder=command.folder, report=report, result=facts)
    say(f"Report: {report}")
    return 0
