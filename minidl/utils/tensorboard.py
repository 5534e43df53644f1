"""`SummaryWriter`, under PyTorch's names: numbers, pictures, histograms and texts for TensorBoard to show.

    writer = SummaryWriter("runs/first")
    writer.add_scalar("loss", loss, step)           # then, in a shell: tensorboard --logdir runs

The package `tensorboard` is imported when the first writer is made; PyTorch and TensorFlow are not needed. What is kept
of a value is in `summaries`, how it comes into a file in `event_file`.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np

from minidl.errors import DtypeError, SettingError, ShapeError, no_such_name
from minidl.utils.event_file import EventFile, tensorboard_parts
from minidl.utils.summaries import as_numbers, as_png, as_scalar, descriptions, histogram, pixels

__all__ = ["SummaryWriter"]

_HINTS = {
    "add_graph": "use minidl.summary(model, size), which prints the layers", "add_video": "use add_images",
    "add_embedding": "plot the vectors in two dimensions and use add_figure", "add_mesh": "plot it and use add_figure",
    "add_pr_curve": "plot it and use add_figure", "add_image_with_boxes": "plot it and use add_figure",
    "add_custom_scalars": "use add_scalars", "add_histogram_raw": "use add_histogram",
}


class SummaryWriter:
    """Writes event files into a folder.

    log_dir: the folder; runs/DATE_HOST and `comment` unless given. purge_step: TensorBoard is to forget what earlier
    files in the folder say about this step and later ones. max_queue, flush_secs: records wait in memory until there
    are so many, or until the last were written so long ago; `flush` and the end of the program write them too.

    Values are tensors, NumPy arrays or numbers. All methods take the step, and the time if it is not now.
    """

    def __init__(self, log_dir: Any = None, comment: str = "", purge_step: int | None = None, max_queue: int = 10,
                 flush_secs: float = 120, filename_suffix: str = "") -> None:
        self._tb = tensorboard_parts()
        self.log_dir = log_dir or f"runs/{datetime.now():%b%d_%H-%M-%S}_{socket.gethostname()}{comment}"
        self.max_queue, self.flush_secs, self.filename_suffix = max_queue, flush_secs, filename_suffix
        self._files: dict[str, EventFile] = {}              # folder -> its file
        main = self._file(os.fspath(self.log_dir))
        if purge_step is not None:
            restart = self._tb.event.SessionLog(status=self._tb.event.SessionLog.START)
            main.add(self._tb.event.Event(session_log=restart), purge_step, None)

    def get_logdir(self) -> Any:
        """The folder."""
        return self.log_dir

    def add_scalar(self, tag: str, scalar_value: Any, global_step: Any = None, walltime: float | None = None,
                   new_style: bool = False, double_precision: bool = False) -> None:
        """One number, nan and infinity too. It is kept in float32, unless both new_style and double_precision."""
        number = as_scalar(scalar_value, "add_scalar")
        if new_style:
            tensor = self._tb.make_tensor_proto(np.array(number, np.float64 if double_precision else np.float32))
            metadata = self._tb.scalar.create_summary_metadata("", "")
            self._add(tag, global_step, walltime, tensor=tensor, metadata=metadata)
        else:
            self._add(tag, global_step, walltime, simple_value=number)

    def add_scalars(self, main_tag: str, tag_scalar_dict: Mapping[str, Any], global_step: Any = None,
                    walltime: float | None = None) -> None:
        """Several numbers for one diagram. Each is a run of its own, in the folder log_dir/main_tag_tag."""
        numbers = {tag: as_scalar(value, "add_scalars") for tag, value in tag_scalar_dict.items()}
        for tag, number in numbers.items():
            folder = f"{os.fspath(self.log_dir)}/{main_tag.replace('/', '_')}_{tag}"
            self._add(main_tag, global_step, walltime, folder, simple_value=number)

    def add_image(self, tag: str, img_tensor: Any, global_step: Any = None, walltime: float | None = None,
                  dataformats: str = "CHW") -> None:
        """A picture of bytes 0…255 or floats 0…1 (what lies beyond becomes 0 or 1), with 1, 3 or 4 channels.

        dataformats: what the axes are, such as "HWC" or "HW". With an "N" the images stand side by side, 8 in a row.
        """
        picture = pixels(img_tensor, dataformats)
        height, width, channels = picture.shape
        self._add(tag, global_step, walltime, image=self._tb.summary.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=as_png(picture)))

    def add_images(self, tag: str, img_tensor: Any, global_step: Any = None, walltime: float | None = None,
                   dataformats: str = "NCHW") -> None:
        """A batch of images as one picture, 8 in a row."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_figure(self, tag: str, figure: Any, global_step: Any = None, close: bool = True,
                   walltime: float | None = None) -> None:
        """A figure of matplotlib, or a list of figures of one size, as a picture. close: also close them."""
        from matplotlib import pyplot
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figures = figure if isinstance(figure, list) else [figure]
        pictures = []
        for one in figures:
            if not isinstance(one, Figure):
                raise DtypeError(f"got a {type(one).__name__}, expected a figure; make one with plt.subplots()",
                                 where="add_figure")
            canvas: Any = FigureCanvasAgg(one)
            canvas.draw()
            pictures.append(np.asarray(canvas.buffer_rgba())[:, :, :3])             # (H, W, RGB), without alpha
        sizes = sorted({picture.shape[:2] for picture in pictures})
        if len(sizes) != 1:
            raise ShapeError(f"got figures of the sizes {sizes}, expected one or more of one size", where="add_figure")
        self.add_image(tag, np.stack(pictures), global_step, walltime, "NHWC")
        for one in figures if close else ():
            pyplot.close(one)

    def add_histogram(self, tag: str, values: Any, global_step: Any = None, bins: Any = "tensorflow",
                      walltime: float | None = None, max_bins: int | None = None) -> None:
        """How the numbers of a tensor, of any shape, are distributed.

        bins: TensorBoard's own, or what `numpy.histogram` takes. max_bins: neighbours are put together until there are
        about so many.
        """
        x = as_numbers(values, "add_histogram").astype(np.float64).reshape(-1)
        strange = np.count_nonzero(~np.isfinite(x))
        if not x.size or strange:
            raise SettingError(f"got {x.size:,} values, {strange:,} of them nan or infinite, expected one or more, all "
                               f"finite", where="add_histogram")
        counts, edges = histogram(x, bins, max_bins)
        self._add(tag, global_step, walltime, histo=self._tb.summary.HistogramProto(
            min=x.min(), max=x.max(), num=x.size, sum=x.sum(), sum_squares=x.dot(x),
            bucket_limit=edges.tolist(), bucket=counts.tolist()))

    def add_text(self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None) -> None:
        """A text, which TensorBoard shows as Markdown."""
        if not isinstance(text_string, str):
            raise DtypeError(f"got a {type(text_string).__name__}, expected a string; use str(x)", where="add_text")
        self._add(f"{tag}/text_summary", global_step, walltime, metadata=self._tb.text.create_summary_metadata("", ""),
                  tensor=self._tb.make_tensor_proto([text_string.encode()]))

    def add_hparams(self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any],
                    hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None, run_name: str | None = None,
                    global_step: Any = None) -> None:
        """A row in the table of runs: hyperparameters (numbers, booleans, strings, None) and what came of them.

        It is a run of its own, in the folder log_dir/run_name; the time unless given. hparam_domain_discrete: which
        values a hyperparameter can have.
        """
        numbers = {tag: as_scalar(value, "add_hparams") for tag, value in metric_dict.items()}
        descriptions(self._tb, hparam_dict, metric_dict, hparam_domain_discrete or {})  # first: it raises
        with SummaryWriter(os.path.join(self.log_dir, run_name or str(time.time()))) as run:
            run.describe_run(hparam_dict, metric_dict, hparam_domain_discrete, global_step)
            for tag, number in numbers.items():
                run.add_scalar(tag, number, global_step)

    def describe_run(self, hparam_dict: Mapping[str, Any], metric_dict: Mapping[str, Any],
                     hparam_domain_discrete: Mapping[str, Sequence[Any]] | None = None,
                     global_step: Any = None) -> None:
        """As `add_hparams`, for the run in this folder: its metrics are what is logged under their names."""
        for tag, metadata in descriptions(self._tb, hparam_dict, metric_dict, hparam_domain_discrete or {}):
            self._add(tag, global_step, None, metadata=metadata)

    def flush(self) -> None:
        """Write what waits in memory."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Write what waits in memory. What is added later goes into a new file in the same folder."""
        self.flush()
        self._files.clear()

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        raise no_such_name("SummaryWriter", name, lambda: dir(SummaryWriter), _HINTS)

    def _file(self, folder: str) -> EventFile:
        if folder not in self._files:
            self._files[folder] = EventFile(self._tb, folder, self.max_queue, self.flush_secs, self.filename_suffix)
        return self._files[folder]

    def _add(self, tag: str, global_step: Any, walltime: float | None, folder: str = "", **value: Any) -> None:
        if not isinstance(tag, str):
            raise DtypeError(f"got the tag {tag!r}, expected a string", where="SummaryWriter")
        summary = self._tb.summary.Summary(value=[self._tb.summary.Summary.Value(tag=tag, **value)])
        self._file(folder or os.fspath(self.log_dir)).add(self._tb.event.Event(summary=summary), global_step, walltime)
