"""Loops over the iterations of a training."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, overload

from pte_tracking._engine.data_loop import DataLoop
from pte_tracking._engine.iteration import IterationScope
from pte_tracking._engine.restorable_training import RestorableTraining

_Batch = TypeVar("_Batch")


class TrainingLoop(RestorableTraining):
    """Training whose loop the user writes."""

    _iteration_scope: IterationScope
    _data_loop: DataLoop

    def run_iteration(
        self,
        *,
        epoch: int | None = None,
        iteration: int | None = None,
        epoch_size: int | None = None,
        step_optimizers: Sequence[str] = (),
    ) -> IterationScope:
        """Return the context manager of one iteration, to use around the update.

        The manager counts iterations and epochs itself; all arguments are optional.

        Args:
            epoch: Epoch of the iteration, from 0. Defaults to the manager's count.
            iteration: Number of the iteration, from 0 and over all epochs. Defaults to the manager's count.
            epoch_size: Number of iterations per epoch. Defaults to ``iters_per_epoch``.
            step_optimizers: Names of optimizers whose ``zero_grad()`` is called before the block and whose ``step()``
                is called after the block. For an optimizer without ``zero_grad()``, it is called for the model of the
                same name, or for all models. Defaults to none.

        Raises:
            RuntimeError: If the training has ended, or an iteration is in progress. Raised on entering the block.
            ValueError: If an argument contradicts another or the manager's count, or an optimizer does not exist.
        """
        if epoch_size is not None:
            self.updater.set_iters_per_epoch("epoch_size", epoch_size)
        if iteration is not None:
            self.updater.set_position(iteration, epoch)
        if step_optimizers and not self.optimizers.keys() >= set(step_optimizers):
            raise ValueError(
                f"step_optimizers: expected a list of names from {', '.join(self.optimizers) or 'none'}, "
                f"got {step_optimizers!r}"
            )
        self._iteration_scope.step_optimizers = step_optimizers
        return self._iteration_scope

    @overload
    def batches(self, loader: Mapping[str, Iterable[_Batch]], name: str = "main") -> Iterator[dict[str, _Batch]]: ...

    @overload
    def batches(self, loader: Iterable[_Batch], name: str = "main") -> Iterator[_Batch]: ...

    def batches(self, loader: Any, name: str = "main") -> Iterator[Any]:
        """Yield the batches of a loader, epoch after epoch, until the training stops; then end the run.

        Args:
            loader: A DataLoader or another iterable that can be iterated repeatedly. A dictionary of loaders, or a list
                or tuple of DataLoaders, yields dictionaries or tuples of batches; a pass ends with the shortest loader.
            name: Name of the loader in snapshots. Required for a second loop at the same time. Defaults to
                ``"main"``.

        Returns:
            Iterator over the batches. After a resume, they start at the batch that followed the snapshot.

        Raises:
            RuntimeError: If a whole epoch passes without an iteration, or another loop has the same name.
            TypeError: If the loader cannot be iterated.
        """
        return self._data_loop.batches(loader, name)

    @overload
    def iterations(self, loader: None = None) -> Iterator[int]: ...

    @overload
    def iterations(self, loader: Mapping[str, Iterable[_Batch]], name: str = "main") -> Iterator[dict[str, _Batch]]: ...

    @overload
    def iterations(self, loader: Iterable[_Batch], name: str = "main") -> Iterator[_Batch]: ...

    def iterations(self, loader: Any = None, name: str = "main") -> Iterator[Any]:
        """Yield the batches of a loader, each within an iteration, until the training stops; then end the run.

        The body of the loop is the iteration: the extensions run when the next batch is requested, or when ``break`` or
        ``return`` leaves the loop. An iteration that an exception leaves is not counted. A wrapper that takes a batch
        and withholds it, such as ``zip`` with a shorter second iterable, adds an iteration without a body. Write
        ``zip(other, manager.iterations(loader))``, or pass the loaders together. Use :meth:`batches` with
        :meth:`run_iteration` if code between the iterations has to see their results.

        Without a loader, the body draws its own data, or requests any number of batches from an iterator that
        :meth:`batches` returned before the loop.

        Args:
            loader: A DataLoader or another iterable; see :meth:`batches`. Defaults to none: the loop yields
                ``manager.iteration``, the number of completed iterations.
            name: Name of the loader in snapshots. Defaults to ``"main"``.

        Returns:
            Iterator over the batches. After a resume, they start at the batch that followed the snapshot.

        Raises:
            RuntimeError: If another iteration is in progress, or another loop has the same name.
            TypeError: If the loader cannot be iterated.
            ValueError: If there is no loader, and the training ends after a number of epochs of unknown length.

        Example:
            >>> import pte_tracking as pte
            >>> from pte_tracking import extensions
            >>> reports = [extensions.LogReport(), extensions.PrintReport(["epoch", "loss"])]
            >>> manager = pte.ExtensionsManager({}, 2, reports)
            >>> for loss in manager.iterations([0.5, 0.25]):
            ...     pte.report({"loss": loss})
            epoch       loss
            1           0.375
            2           0.375
        """
        return self._data_loop.iterations(loader, name)
