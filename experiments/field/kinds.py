"""The kinds of scans that people bring, each made anew, with what is right for it."""

from experiments.field.kinds_files import files, pictures
from experiments.field.kinds_geometry import angles, units
from experiments.field.kinds_strangers import arrays, texts
from experiments.field.kinds_strangers import pictures as other_pictures
from experiments.field.kinds_values import beams, defects, values

KINDS = (*units(), *values(), *angles(), *defects(), *beams(), *pictures(), *files(), *other_pictures(), *texts(), *arrays())
