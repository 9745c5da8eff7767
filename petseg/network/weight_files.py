"""Files of weights: the encoder's from ImageNet or an .npz file, and what damaged ones raise."""

from __future__ import annotations

import contextlib
import http.client
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from petseg.errors import DatasetError, first_line

# What NumPy and Keras raise for a file of weights that is cut, bent, empty, of another kind, or of
# classes that nobody knows here.
LOAD_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, EOFError),
    *(zipfile.BadZipFile, zlib.error),
)
# What Keras' bare exceptions say of a download that failed, and of one that is damaged.
_DOWNLOAD_FAILED = ("URL fetch failure", "Incomplete or corrupted file")


def read_encoder(encoder_weights: str) -> dict[str, list[NDArray[np.float32]]]:
    """The encoder's layers that weights are given for: layer to kernel (HWIO) and bias.

    Args:
        encoder_weights: "imagenet", "none", or the path of an .npz file with keys such as
            `block1_conv1/kernel` and `block1_conv1/bias`.

    Raises:
        DatasetError: the weights cannot be downloaded or read.
    """
    if encoder_weights == "none":
        return {}
    if encoder_weights == "imagenet":
        return _imagenet()
    path = Path(encoder_weights)
    try:
        # np.load leaves a file open that it opened itself and cannot read.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            names = sorted({key.rpartition("/")[0] for key in file.files})
            # A member that is no array comes as bytes.
            return {
                name: [np.asarray(file[f"{name}/{part}"]) for part in ("kernel", "bias")]
                for name in names
            }
    except LOAD_ERRORS as error:
        raise DatasetError(
            f"cannot read encoder weights from {path}: {first_line(error)}; expected an .npz file "
            "with keys like block1_conv1/kernel and block1_conv1/bias"
        ) from error


def _imagenet() -> dict[str, list[NDArray[np.float32]]]:
    import keras

    try:
        # Keras draws its download's progress on stdout, which is for results.
        with contextlib.redirect_stdout(sys.stderr):
            vgg16 = keras.applications.VGG16(include_top=False, weights="imagenet")
    # A failed download is a bare Exception that names the address, a damaged one a ValueError; one
    # that breaks off raises what the connection raised.
    except Exception as error:
        broke_off = isinstance(error, OSError | http.client.HTTPException)
        if not broke_off and not any(words in str(error) for words in _DOWNLOAD_FAILED):
            raise
        raise DatasetError(
            f"VGG16's ImageNet weights cannot be downloaded ({first_line(error)}); run the same "
            "command again, give a file with --encoder-weights FILE.npz, or train from scratch "
            "with --encoder-weights none --train-encoder"
        ) from error
    return {layer.name: layer.get_weights() for layer in vgg16.layers if layer.weights}
