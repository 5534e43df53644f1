"""The hooks: methods that a Trainer calls at fixed points of its run, empty unless you write them.

A callback's hooks are called as `hook(trainer, module, ...)`, then the module's as `hook(...)`. In order, with what
else happens in between:

    setup(stage)                                    stage: "fit", "validate", "test" or "predict"
    on_fit_start()
    on_train_start()
        on_train_epoch_start()
            on_train_batch_start(batch, batch_idx)      a module's may return -1: no more batches in this epoch
                                                    training_step(batch, batch_idx) -> the loss
            on_before_zero_grad(optimizer)
            on_before_backward(loss)
            on_after_backward()
            on_before_optimizer_step(optimizer)     then the gradients are clipped and the optimizer steps
            on_train_batch_end(outputs, batch, batch_idx)
                                                    after the last batch, the schedules by epoch step
        on_validation_start()
        on_validation_epoch_start()
            on_validation_batch_start(batch, batch_idx)
                                                    validation_step(batch, batch_idx)
            on_validation_batch_end(outputs, batch, batch_idx)
        on_validation_epoch_end()
        on_validation_end()
        on_train_epoch_end()                        last, callbacks that look at the whole epoch: EarlyStopping, …
    on_train_end()
    on_fit_end()
    teardown(stage)

`test` and `predict` have the hooks of validation under their own names. on_save_checkpoint(checkpoint) may add to a
checkpoint, a dict, and on_load_checkpoint(checkpoint) read it again. on_exception(exception) is for callbacks. What
on_train_batch_end gets as outputs is a dict: the loss, as it was differentiated, and what else training_step returned.
"""

from __future__ import annotations

import difflib
import warnings
from typing import Any

from minidl.errors import ModuleError

# hooks that Lightning had once, with what took their place
REMOVED = {
    "training_epoch_end": "on_train_epoch_end(self)", "validation_epoch_end": "on_validation_epoch_end(self)",
    "test_epoch_end": "on_test_epoch_end(self)", "training_end": "on_train_batch_end(self, outputs, batch, batch_idx)",
    "validation_end": "on_validation_epoch_end(self)", "test_end": "on_test_epoch_end(self)",
    "training_step_end": "the end of training_step", "validation_step_end": "the end of validation_step",
    "on_epoch_start": "on_train_epoch_start", "on_epoch_end": "on_train_epoch_end",
    "on_batch_start": "on_train_batch_start", "on_batch_end": "on_train_batch_end",
}
_MANUAL = "set self.automatic_optimization = False, and call backward, clip_gradients and step in training_step"
_BATCH = "change the batch at the beginning of training_step"
# what Lightning lets a module replace, and this Trainer does not
OVERRIDES = {
    "optimizer_step": f"for a warm-up take LinearLR with 'interval': 'step'; or {_MANUAL}", "backward": _MANUAL,
    "optimizer_zero_grad": _MANUAL, "configure_gradient_clipping": _MANUAL,
    "lr_scheduler_step": "let configure_optimizers return {'scheduler': …, 'interval': …, 'monitor': …}",
    "transfer_batch_to_device": _BATCH, "on_before_batch_transfer": _BATCH, "on_after_batch_transfer": _BATCH,
    "configure_model": "build the layers in __init__",
}


class Hooks:
    """Every hook, empty."""

    def setup(self, *args: Any) -> Any:
        """Empty; the beginning of minidl.train.hooks says when each hook is called, and with what."""

    teardown = on_exception = on_save_checkpoint = on_load_checkpoint = setup
    on_fit_start = on_fit_end = on_train_start = on_train_end = setup
    on_train_epoch_start = on_train_epoch_end = on_train_batch_start = on_train_batch_end = setup
    on_before_zero_grad = on_before_backward = on_after_backward = on_before_optimizer_step = setup
    on_validation_start = on_validation_end = on_validation_epoch_start = on_validation_epoch_end = setup
    on_validation_batch_start = on_validation_batch_end = setup
    on_test_start = on_test_end = on_test_epoch_start = on_test_epoch_end = setup
    on_test_batch_start = on_test_batch_end = setup
    on_predict_start = on_predict_end = on_predict_epoch_start = on_predict_epoch_end = setup
    on_predict_batch_start = on_predict_batch_end = setup


def check_hooks(owner: Any, base: type) -> None:
    """Raise for a method of a module or callback that Lightning would call and this Trainer does not; warn of one that
    is called nearly as a hook of `base`.
    """
    own, known = type(owner), set(dir(base))
    for name in sorted(name for name in dir(own) if name not in known and callable(getattr(own, name, None))):
        if name in REMOVED:
            raise ModuleError(f"got {name}, which Lightning 2 no longer calls; collect outputs in a list of your own "
                              f"and write {REMOVED[name]}", where=own.__name__)
        if name in OVERRIDES and "training_step" in known:
            raise ModuleError(f"got {name}, which this Trainer does not call; {OVERRIDES[name]}", where=own.__name__)
        hooks = [hook for hook in known if hook.startswith("on_") or hook.endswith("_step")]
        near = difflib.get_close_matches(name, hooks, 1, 0.85)
        if near and getattr(own, near[0]) is getattr(base, near[0]):
            warnings.warn(f"{own.__name__} has {name}, which nobody calls; did you mean {near[0]}?", stacklevel=4)
