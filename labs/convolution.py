"""One convolution, computed by every kernel set: the same numbers, thousands of times faster from step to step.

By default it is the second convolution of the MNIST network, 32 channels to 64, 3×3, on a batch of 64 images of 14×14,
with both of its gradients. All sets are checked against each other first, then timed in turn.

    python -m labs.convolution
    python -m labs.convolution --channels-in 64 --size 28 --kernel 5 --batch-size 16
    python -m labs.convolution --preset full            # more rounds, steadier medians

A multiplication and an addition count as two operations (FLOP), and all sets get the same count, terms on padding too.
"""
# %%


