"""Networks that several labs use, and one that Keras trained on ImageNet."""

from minidl.models.autoencoders import Autoencoder, conv_autoencoder, dense_autoencoder
from minidl.models.cnn48 import cnn48
from minidl.models.imagenet import decode_predictions, preprocess_input
from minidl.models.lenet import lenet
from minidl.models.resnet50v2 import ResNet50V2, resnet50v2
from minidl.models.small_cnn import small_cnn
from minidl.models.small_resnet import small_resnet

__all__ = ["Autoencoder", "ResNet50V2", "cnn48", "conv_autoencoder", "decode_predictions", "dense_autoencoder", "lenet",
           "preprocess_input", "resnet50v2", "small_cnn", "small_resnet"]
