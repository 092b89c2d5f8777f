"""Values of a writer with the interface of TensorBoard's that become sounds and artifacts."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pte_tracking._runs.run_media import MediaContent
from pte_tracking._store import events
from pte_tracking.integrations import _files
from pte_tracking.integrations._pixels import to_numbers
from pte_tracking.integrations._summary_base import SummaryBase
from pte_tracking.integrations._summary_run import artifact_path


class FileWriter(SummaryBase):
    """Base class of :class:`~pte_tracking.integrations.tensorboard.SummaryWriter` that adds artifacts."""

    def add_audio(
        self,
        tag: str,
        snd_tensor: Any,
        global_step: Any = None,
        sample_rate: int = 44100,
        walltime: float | None = None,
    ) -> None:
        """Add a sound as a WAV file.

        Args:
            tag: Name of the sound.
            snd_tensor: Sound ``(1, samples)`` with values from -1 to 1. Other values are clipped, which is logged once.
            global_step: Step. None counts the sounds of the tag.
            sample_rate: Samples per second.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            TypeError: If the sound does not consist of real numbers.
            ValueError: If the sound has several channels.
        """
        step = self._step(global_step, tag)
        name, rate = f"sound {tag!r} at step {step}", int(sample_rate)
        if (abs(to_numbers(snd_tensor, name)) > 1).any():
            self._note(f"add_audio: values of {tag!r} outside -1 to 1 are clipped. Divide the sound by its maximum.")
        self.run.add_media(
            events.Audio,
            tag,
            step,
            lambda name: MediaContent(_files.encode_wav(snd_tensor, rate, name), ".wav", (rate,)),
            walltime,
        )

    def add_tensor(self, tag: str, tensor: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Add a tensor as an artifact in the format of ``numpy.load``.

        Args:
            tag: Name of the tensor.
            tensor: Tensor or array.
            global_step: Step. None counts the tensors of the tag.
            walltime: Time in seconds since the Unix epoch.
        """
        step = self._step(global_step, tag)
        self.run.add_file("tensors", tag, f"step_{step}.npy", lambda: _files.encode_npy(tensor), walltime)

    def add_mesh(
        self,
        tag: str,
        vertices: Any,
        colors: Any = None,
        faces: Any = None,
        config_dict: Mapping[str, Any] | None = None,
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Add meshes or clouds of points as artifacts in the format PLY.

        Args:
            tag: Name of the mesh.
            vertices: Coordinates ``(batch, vertices, 3)``.
            colors: Colors ``(batch, vertices, 3)`` from 0 to 255, or from 0 to 1 as floats.
            faces: Indices of the vertices of triangles ``(batch, triangles, 3)``.
            config_dict: Not recorded, which is logged once.
            global_step: Step. None counts the meshes of the tag.
            walltime: Time in seconds since the Unix epoch.

        Raises:
            TypeError: If the coordinates, colors, or indices are not real numbers.
            ValueError: If a shape is wrong.
        """
        step = self._step(global_step, tag)
        name = f"mesh {tag!r} at step {step}"
        given = {"vertices": vertices, "colors": colors, "faces": faces}
        arrays = {key: to_numbers(value, name) for key, value in given.items() if value is not None}
        for key, array in arrays.items():
            if array.ndim != 3 or array.shape[2] != 3 or len(array) != len(arrays["vertices"]):
                raise ValueError(f"{name}: expected {key} of shape (batch, {key}, 3), got {array.shape}")
        if "colors" in arrays and arrays["colors"].shape != arrays["vertices"].shape:
            raise ValueError(f"{name}: expected one color for each vertex, got {arrays['colors'].shape}")
        if config_dict:
            self._note("add_mesh: config_dict is not recorded. Set camera and lights in the viewer of the PLY file.")
        for index, points in enumerate(arrays["vertices"]):
            parts = [points, *(arrays[key][index] if key in arrays else None for key in ("colors", "faces"))]
            file_name = f"step_{step}.ply" if len(arrays["vertices"]) == 1 else f"step_{step}_{index}.ply"
            self.run.add_file("meshes", tag, file_name, functools.partial(_files.encode_ply, *parts), walltime)

    def add_embedding(
        self,
        mat: Any,
        metadata: Sequence[Any] | None = None,
        label_img: Any = None,
        global_step: Any = None,
        tag: str = "default",
        metadata_header: Sequence[str] | None = None,
    ) -> None:
        """Add an embedding as artifacts, which the projector of TensorBoard and projector.tensorflow.org load.

        Args:
            mat: Points ``(points, dimensions)``.
            metadata: Label of each point, or a list of labels for each point.
            label_img: Images of the points ``(points, channels, height, width)``, which become ``sprite.png``.
            global_step: Step. None counts the embeddings of the tag.
            tag: Name of the embedding.
            metadata_header: Names of the columns of ``metadata``.

        Raises:
            TypeError: If points or images are not real numbers.
            ValueError: If a shape is wrong, or the numbers of points, labels, and images differ.
        """
        folder = f"step_{self._step(global_step, f'embedding {tag}')}"
        name = f"embedding {tag!r}"
        points = to_numbers(mat, name)
        if points.ndim != 2:
            raise ValueError(f"{name}: expected points of shape (points, dimensions), got {points.shape}")
        for argument, given in (("metadata", metadata), ("label_img", label_img)):
            if given is not None and len(given) != len(points):
                raise ValueError(f"{name}: expected one entry of {argument} for each point, got {len(given)}")
        files: dict[str, Callable[[], bytes]] = {"tensors.tsv": lambda: _files.encode_table(points.tolist())}
        if metadata is not None:
            rows = [list(label) if metadata_header else [label] for label in metadata]
            table = [metadata_header, *rows] if metadata_header else rows
            files["metadata.tsv"] = lambda: _files.encode_table(table)
        if label_img is not None:
            files["sprite.png"] = lambda: _files.encode_sprite(label_img, name)
        for file_name, render in files.items():
            self.run.add_file("embeddings", tag, f"{folder}/{file_name}", render)
        paths = {file_name: artifact_path("embeddings", tag, f"{folder}/{file_name}") for file_name in files}
        size = None if label_img is None else (label_img.shape[3], label_img.shape[2])
        self.run.append_file("projector_config.pbtxt", _files.describe_embedding(paths, size))

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True
    ) -> None:
        """Add the structure of a model as a text. The model is not traced, so its state does not change.

        Args:
            model: Module, whose ``repr()`` is logged.
            input_to_model: Has no effect.
            verbose: Whether to print the structure.
            use_strict_trace: Has no effect.
        """
        text = repr(model)
        if verbose:
            print(text)
        self.run.add_text("graph", self._step(None, "graph"), f"```\n{text}\n```", None)

    def add_onnx_graph(self, prototxt: str) -> None:
        """Add an ONNX file as an artifact.

        Args:
            prototxt: Path of the file.

        Raises:
            FileNotFoundError: If the file does not exist.
        """
        self.run.log_artifact(prototxt, "graph")
