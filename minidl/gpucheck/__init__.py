"""`python -m minidl.gpucheck`: is all that runs on the GPU right, and how fast is it? One command, for a new card.

    kernels     every kernel, into memory full of nan, against a float64 result of the CPU
    ops         every op, its gradients against finite differences, on the device
    timing      launches, single kernels, products of matrices and training steps, beside PyTorch where it is installed
    session     what these share: the device, the time that is left, the report
    table       the report as a short table
"""
