"""Writes the models of this folder: ``python -m tests.data.saved_models.write_models``.

The models were saved before the package's modules moved to other folders, and they stay as they
are: a file that exists is never written again. The file beside each model holds its predictions
for ``images.npz`` and its parameters as text. Together the models name every class of the package
that a file may hold.
"""

import inspect
import lzma
from functools import partial

import numpy as np
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV, KFold
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from skorch.callbacks import EarlyStopping

import hybridseg as hs
from hybridseg import features as fs
from hybridseg import losses, networks
from hybridseg.datasets import LabelFile
from hybridseg.pairwise import BilateralKernel, FeatureKernel, GaussianKernel
from hybridseg.scene.costs import RegionCosts
from hybridseg.unary import Augmentation, Views
from tests.persistence.test_moved import MODELS, expected_of
from tests.subjects import halves

X, Y = halves([(20, 26)] * 2)
NOISE = np.random.default_rng(0).normal(0, 40, (2, 20, 26, 3))
X = [*np.clip(X + NOISE, 0, 255).astype(np.uint8)]
KERNELS = (GaussianKernel(1.0, 2.0), BilateralKernel(2.0, 9.0, 15.0))
ARRAY = FeatureKernel(0.5, X[0][..., :1] / np.float32(40))
OPTIONS = {"network_options": {"width": 2, "depth": 1}, "max_epochs": 1, "crop_size": 16}
UNET = {"in_channels": 3, "n_classes": 3, "width": 2, "depth": 1}


def pixels(features=None):
    return hs.PixelClassifier(GaussianNB(), features=features or fs.PixelFeatures(sigmas=(1.0,)))


def regions(superpixels, features=None):
    return hs.SuperpixelClassifier(GaussianNB(), superpixels=superpixels, features=features)


def deep(network="unet", **options):
    return hs.DeepSegmenter(network, **(OPTIONS | {"random_state": 0} | options))


def searched(model, grid):
    return GridSearchCV(model, grid, cv=KFold(2)).fit(X, Y)


def adapter(*methods, **options):
    trained = FrozenEstimator(deep().fit(X, Y)) if "entropy" in methods else deep().fit(X, Y)
    model = hs.DomainAdapter(trained, methods, rounds=1, epochs=1, random_state=0, **options)
    return model.fit([image // 2 for image in X])


def pretrained(network, rank=2, **options):
    network = with_plain_weights(network).eval()
    return hs.PretrainedSegmenter(network, range(3), spatial_ndim=rank, **options)


def small(network):
    """The network with few channels, so that it has few weights."""
    options = {"width": 2, "depth": 1, "head_channels": 8, "pyramid_channels": 8, "growth": 1}
    options |= {"layers": 1, "convs": (1, 1), "encoder": "mobilenet_v3_small", "skip_channels": 2}
    if network in (networks.ESPNet, networks.ESPNetv2):
        options["depths"] = (1, 1)
    if network is networks.ENet:
        options["width"] = 4
    known = inspect.signature(network).parameters
    return network(3, 3, **{name: value for name, value in options.items() if name in known})


def with_plain_weights(network):
    """Fill the weights with repeated numbers, which take no room once they are compressed."""
    for parameter in network.parameters():
        if parameter.ndim > 1:
            values = (torch.arange(parameter.numel()) * 29 % 97 - 48) / 28
            scale = (2 / parameter[0].numel()) ** 0.5
            parameter.data = values.reshape(parameter.shape) * scale
    return network


def all_losses():
    """A sum of all losses that take any number of classes, and of one loss of torch."""
    kinds = [
        getattr(losses, name) for name in losses.__all__ if name.istitle() or name[0].isupper()
    ]
    own = [kind for kind in kinds if issubclass(kind, losses.Loss)]
    other = (losses.Loss, losses.SumOf, losses.LovaszHinge)
    terms = [kind() for kind in own if kind not in other] + [torch.nn.CrossEntropyLoss()]
    return losses.SumOf([(0.1, term) for term in terms])


def unfitted_deep():
    scene = hs.Scene(X[0], RegionCosts(np.zeros((20, 26), np.int32), np.zeros((1, 3), np.float32)))
    tasks = losses.MultiTask(losses.LovaszHinge(), torch.nn.L1Loss())
    held_out = hs.ImageList([scene]), [LabelFile("labels.png", 255)]
    return deep(loss=tasks, validation=held_out, mirror_pairs=((0, 1),))


def unfitted_networks():
    return GridSearchCV(deep(), {"network": [*networks.NETWORKS.values()]})


def models():
    torch.manual_seed(0)
    yield "pixels", pixels().fit(X, Y)
    forest = RandomForestClassifier(3, max_depth=3)
    yield "forest", hs.PixelClassifier(forest, random_state=0).fit(X, Y)
    refiner = hs.DenseCRF(kernels=(*KERNELS, ARRAY), n_iter=2)
    yield "slic", make_pipeline(regions(fs.SLIC(40), fs.RegionFeatures()), refiner).fit(X, Y)
    refiner = hs.GridCRF(on="regions", kernels=KERNELS)
    yield "etps", make_pipeline(regions(fs.ETPS(40)), refiner).fit(X, Y)
    refiner = hs.GraphCut(on="regions")
    yield "felzenszwalb", make_pipeline(regions(fs.Felzenszwalb(20.0)), refiner).fit(X, Y)
    yield "functions", searched(regions(None), {"superpixels": [fs.slic, fs.etps, fs.felzenszwalb]})
    yield "cross_fit", make_pipeline(hs.CrossFit(pixels(), KFold(2)), hs.LevelSet()).fit(X, Y)
    for refiner in (hs.DenseCRF, hs.GridCRF, hs.GraphCut, hs.LevelSet):
        yield refiner.__name__.lower(), refiner(pixels()).fit(X, Y)
    search = searched(make_pipeline(pixels(), hs.GraphCut()), {"graphcut__weight": [1.0, 5.0]})
    yield "search", search
    yield "best", search.best_estimator_
    yield (
        "deep_losses",
        deep(
            loss=all_losses(),
            optimizer=partial(torch.optim.SGD, momentum=0.5),
            augment=Augmentation("dihedral", mirrored=(0, 1, 2)),
            tta=Views((1.0, 1.5)),
            callbacks=[EarlyStopping(monitor="train_loss")],
            validation=(hs.ImageList(X), hs.ImageList(Y)),
        ).fit(X, Y),
    )
    supervised = losses.DeepSupervision(losses.CrossEntropy([1, 2, 3]))
    model = make_pipeline(deep(networks.UNet, loss=supervised), hs.DenseCRF(n_iter=2))
    yield "deep_supervision", model.fit(X, Y)
    module = networks.adapt(networks.UNet(**UNET), multiple_of=4)
    yield "deep_module", deep(module, network_options=None).fit(X, Y)
    yield "deep_features", pixels(hs.DeepFeatures("mobilenet_v3_small", weights=None)).fit(X, Y)
    yield "deep_statistics", adapter("batch_statistics")
    yield "deep_entropy", adapter("entropy")
    yield "deep_self_training", adapter("self_training", refiner=hs.GraphCut())
    yield "deep_adapted", pretrained(networks.adapt(networks.UNet(**UNET), statistics="imagenet"))
    yield "deep_pretrained", pretrained(networks.UNet(**UNET), tta=Views())
    for name, network in networks.NETWORKS.items():
        made = small(network)
        ranks = {"unet3d": 3, "vnet": 3}
        name = f"deep_volume_{name}" if name in ranks else f"deep_network_{name}"
        yield name, pretrained(made, 3 if "volume" in name else 2)
    yield "deep_unfitted", unfitted_deep()
    yield "deep_unfitted_networks", unfitted_networks()


if __name__ == "__main__":
    images = MODELS / "images.npz"
    if not images.exists():
        np.savez_compressed(images, images=np.stack(X))
    for name, model in models():
        path = MODELS / f"{name}.hybridseg"
        packed = MODELS / f"{path.name}.xz"
        if not packed.exists():
            np.savez_compressed(MODELS / f"{name}.npz", **expected_of(name, model))
            packed.write_bytes(lzma.compress(hs.save(model, path).read_bytes(), preset=9))
            path.unlink()
