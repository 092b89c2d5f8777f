"""Events of media: pictures, tables, pages, sounds, videos, histograms, and texts."""

from __future__ import annotations

from pte_tracking._store.event_base import Event, Int64, RelativePath


class MediaFile(Event, frozen=True):
    """Base class of events that have a file, a key, and a step. The class itself is not a kind of event.

    Attributes:
        key: Name of the series of files.
        step: Number of completed iterations.
        path: File relative to the run directory.
        caption: Text that backends show with the file. Empty for no caption.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking import sinks
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory) as run:
        ...         run.log_table("predictions", {"label": [3, 5]}, step=10)
        ...         run.log_html("attention", "<b>The</b> cat", step=10)
        ...     for event, position in sinks.read_effective(run.directory / sinks.JOURNAL):
        ...         if isinstance(event, sinks.MediaFile):
        ...             print(type(event).__name__, event.key, event.step, event.path)
        Table predictions 10 media/table/predictions/step_10.json
        Html attention 10 media/html/attention/step_10.html
    """

    key: str
    step: Int64
    path: RelativePath
    caption: str = ""


class Figure(MediaFile, frozen=True):
    """A figure was logged as a PNG file. A later figure with the same key and step replaces it.

    Attributes:
        key: Name of the figure.
        step: Number of completed iterations.
        path: PNG file, relative to the run directory.
        caption: Text that backends show with the figure. Empty for no caption.
    """


class Image(MediaFile, frozen=True):
    """An image was logged as a PNG file.

    Attributes:
        key: Name of the image.
        step: Number of completed iterations.
        path: PNG file, relative to the run directory.
        caption: Text that backends show with the image. Empty for no caption.
    """


class Table(MediaFile, frozen=True):
    """A table was logged.

    Attributes:
        key: Name of the table.
        step: Number of completed iterations.
        path: JSON file, relative to the run directory: an object with the list ``columns`` of names and the list
            ``data`` of rows. A cell is any JSON value. Numbers that are missing or not a number are null.
        caption: Text that backends show with the table. Empty for no caption.
    """


class Html(MediaFile, frozen=True):
    """A page was logged.

    Attributes:
        key: Name of the page.
        step: Number of completed iterations.
        path: HTML file in UTF-8, relative to the run directory.
        caption: Text that backends show with the page. Empty for no caption.
    """


class Audio(MediaFile, frozen=True):
    """A sound was logged.

    Attributes:
        key: Name of the sound.
        step: Number of completed iterations.
        path: File relative to the run directory. Its suffix is the format: ``.wav``, ``.mp3``, ``.flac``, or ``.ogg``.
        caption: Text that backends show with the sound. Empty for no caption.
        sample_rate: Samples per second. None if it is not known.
    """

    sample_rate: int | None = None


class Video(MediaFile, frozen=True):
    """A video was logged.

    Attributes:
        key: Name of the video.
        step: Number of completed iterations.
        path: File relative to the run directory. Its suffix is the format: ``.gif``, ``.mp4``, or ``.webm``.
        caption: Text that backends show with the video. Empty for no caption.
        fps: Frames per second. None if it is not known.
    """

    fps: float | None = None


class Histogram(Event, frozen=True):
    """Distribution of finite values.

    Attributes:
        key: Name of the histogram.
        step: Number of completed iterations.
        edges: Bin edges in ascending order. There is one more edge than there are bins.
        counts: Number of values in each bin.
        min: Smallest value.
        max: Largest value.
        sum: Sum of the values.
        sum_squares: Sum of the squared values.

    Example:
        >>> import tempfile
        >>> import pte_tracking as pte
        >>> from pte_tracking import sinks
        >>> with tempfile.TemporaryDirectory() as directory:
        ...     with pte.Run(directory) as run:
        ...         run.log_histogram("weights", [0.0, 1.0, 1.0, 2.0], step=10)
        ...     for event, position in sinks.find_events(run.directory / sinks.JOURNAL, sinks.Histogram):
        ...         print(event.min, event.max, sum(event.counts))
        0.0 2.0 4.0
    """

    key: str
    step: Int64
    edges: list[float]
    counts: list[float]
    min: float
    max: float
    sum: float
    sum_squares: float


class Text(Event, frozen=True):
    """A text was logged.

    Attributes:
        key: Name of the text.
        step: Number of completed iterations.
        text: The text. Backends that support Markdown render it.
    """

    key: str
    step: Int64
    text: str
