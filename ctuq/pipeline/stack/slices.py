"""One slice of a stack: the ordinary job of an image, with what other slices have taught."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.linalg import LinAlgError  # pyright: ignore[reportAttributeAccessIssue]

from ctuq.errors import BackendError, CtuqError, ResourceError
from ctuq.pipeline.stack.edges import learned_by_edges, made_by_edges
from ctuq.pipeline.stack.network import learned_by_network, made_by_network
from ctuq.pipeline.stack.work import Product, Setting, Slice, Work
from ctuq.pipeline.views import tensors
from ctuq.recon import CLASSICAL
from ctuq.recon.holdout import split, views_to_hold
from ctuq.recon.strength import chosen_strength


def learn_slice(setting: Setting, item: Slice, before: Product | None) -> Product:
    """A slice's fit, hyperparameters and held-out rays, by itself alone."""
    del before
    with _alone():
        return _guarded(lambda: _learned(Work(setting, item)))


def make_slice(setting: Setting, item: Slice, before: Product | None) -> Product:
    """A slice's mean and standard deviation, by the fit of the slice before it and the lesson of a few."""
    with _alone():
        return _guarded(lambda: _made(Work(setting, item), before))


@contextmanager
def _alone() -> Iterator[None]:
    """One thread: sums that are split among threads have other last digits."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _guarded(make: Callable[[], Product]) -> Product:
    """What a slice gives, or why it failed: one of a thousand slices must not lose the others."""
    try:
        product = make()
    except (ResourceError, BackendError):
        raise
    except (CtuqError, LinAlgError) as error:
        return {"failed": " ".join(str(error).split())}
    images = [product[name] for name in ("mean", "std") if name in product]
    if not all(bool(torch.isfinite(image).all()) for image in images):
        return {"failed": "The image or its error bars came out as no numbers."}
    return product


def _learned(work: Work) -> Product:
    return learned_by_network(work) if work.options.method == "dip" else learned_by_edges(work)


def _made(work: Work, before: Product | None) -> Product:
    if work.options.method == "dip":
        return made_by_network(work, before)
    return made_by_edges(work) if work.options.bars else _classical(work)


def _classical(work: Work) -> Product:
    """FBP takes the rays as they were measured: it needs no account of what lies outside."""
    data = None if work.options.method == "fbp" else work.data()
    y, weights = tensors(work.scan, work.device) if data is None else (data.y, data.weights)
    given = {}
    if data is not None and work.options.method == "tv" and len(held := views_to_hold(work.scan, None)[0]):
        given["strength"] = chosen_strength(*split(data, held, rng=torch.Generator()))[0]
    image = CLASSICAL[work.options.method](work.A, y, weights=weights, **work.options.steps, **given)
    return {"mean": image.float().cpu(), "facts": {}}
