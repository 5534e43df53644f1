"""Networks that several labs use."""

from minidl.models.autoencoders import Autoencoder, conv_autoencoder, dense_autoencoder
from minidl.models.cnn48 import cnn48
from minidl.models.lenet import lenet
from minidl.models.small_cnn import small_cnn
from minidl.models.small_resnet import small_resnet

__all__ = ["Autoencoder", "cnn48", "conv_autoencoder", "dense_autoencoder", "lenet", "small_cnn", "small_resnet"]
