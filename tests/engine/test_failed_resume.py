"""A resume that fails leaves the training and its run as they were, and a second resume succeeds."""

from __future__ import annotations

import contextlib
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchdata.stateful_dataloader import StatefulDataLoader

import pte_tracking as pte
from pte_tracking import extensions, updaters

ITERATION = (1, "iteration")


class Interruption(BaseException):
    """End of a training in the middle of an iteration."""


class Refusing:
    """Object that can be told to refuse its saved state after it has changed itself."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error, self.value = error, 1

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]
        if self.error is not None:
            error, self.error = self.error, None
            raise error


class RefusingExtension(Refusing, pte.Extension):
    def __call__(self, manager: pte.Manager) -> None:
        pass


class RefusingTrigger(Refusing, pte.Trigger):
    def __call__(self, manager: pte.Manager) -> bool:
        return False


class RefusingOptimizer(torch.optim.SGD):
    error: BaseException | None = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.error is not None:
            raise self.error


class Training:
    """Training with one part of each kind, of which one may refuse its state."""

    def __init__(self, directory: Path, refusing: str = "", error: BaseException | None = None) -> None:
        torch.manual_seed(0)
        errors = {refusing: error or ValueError("another version")}
        self.model = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.Linear(3, 1))
        self.plain_model = nn.Linear(1, 1)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.1)
        self.own_optimizer = RefusingOptimizer(self.plain_model.parameters(), lr=0.1, momentum=0.9)
        self.own_optimizer.error = errors.get("optimizer")
        self.state_object, self.extension = (
            Refusing(errors.get("state object")),
            RefusingExtension(errors.get("extension")),
        )
        trigger, self.stop = RefusingTrigger(errors.get("trigger")), RefusingTrigger(errors.get("stop trigger"))
        if model_error := errors.get("model"):

            def refuse(*_: Any) -> None:
                raise model_error

            self.model.register_load_state_dict_post_hook(refuse)
        self.manager = pte.ExtensionsManager(
            {"main": self.model, "plain": self.plain_model},
            3,
            [
                extensions.LogReport(trigger=ITERATION),
                extensions.MinValue("loss", ITERATION),
                extensions.snapshot(trigger=(5, "iteration")),
                self.extension,
                pte.ExtensionEntry(lambda manager: None, name="watch", trigger=trigger),
            ],
            optimizers={"main": self.optimizer, "own": self.own_optimizer},
            state_objects={"version": self.state_object},
            iters_per_epoch=6,
            out_dir=directory,
            sinks=["json"],
            stop_trigger=self.stop,
        )

    def train(self, length: int, fails_at: int | None = None) -> None:
        with contextlib.suppress(Interruption), self.manager:
            for batch in self.manager.batches([torch.full((4, 3), 0.1 * index) for index in range(6)]):
                with self.manager.run_iteration(step_optimizers=["main", "own"]):
                    if self.manager.iteration == fails_at:
                        raise Interruption
                    loss = self.model(batch).square().mean()
                    (loss + self.plain_model(loss.detach().reshape(1)).sum()).backward()
                    pte.report({"loss": loss})
                if self.manager.iteration == length:
                    break

    def contents(self) -> Any:
        """Return copies of all states, and the next numbers of all generators."""
        return (
            [tensor.tolist() for model in (self.model, self.plain_model) for tensor in model.state_dict().values()],
            [str(optimizer.state_dict()) for optimizer in (self.optimizer, self.own_optimizer)],
            (self.state_object.value, self.extension.value, self.manager.iteration, self.manager.elapsed_time),
            self.manager.get_extension("min_value").state_dict(),
            torch.get_rng_state().tolist(),
            random.getstate(),
        )


def read_files(directory: Path) -> dict[str, bytes]:
    paths = [path for path in directory.rglob("*") if path.is_file() and not path.name.endswith(".lock")]
    return {str(path.relative_to(directory)): path.read_bytes() for path in paths}


def read_iterations(directory: Path) -> list[int]:
    return [row["iteration"] for row in json.loads((directory / "log").read_text())]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    training = Training(tmp_path_factory.mktemp("uninterrupted"))
    training.train(18)
    return training.contents()[:2]


@pytest.mark.parametrize("part", ["state object", "extension", "trigger", "stop trigger", "optimizer", "model"])
def test_resume_with_a_refusing_part_changes_nothing_and_can_be_repeated(
    tmp_path: Path, part: str, uninterrupted: Any
) -> None:
    Training(tmp_path).train(18, fails_at=13)
    training = Training(tmp_path, part)
    training.state_object.value = training.extension.value = 7
    with torch.no_grad():
        for parameter in training.model.parameters():
            parameter.fill_(0.5)
    contents, files = training.contents(), read_files(tmp_path)
    with pytest.raises(ValueError, match=r"another version\. Nothing was restored"):
        training.manager.resume()
    assert training.contents() == contents
    training.manager.close()
    assert read_files(tmp_path) == files
    assert read_iterations(tmp_path) == [*range(1, 14)]
    training = Training(tmp_path)
    checkpoint = training.manager.resume()
    assert getattr(checkpoint, "step", None) == 10
    training.train(18)
    assert (training.contents()[:2], read_iterations(tmp_path)) == (uninterrupted, [*range(1, 19)])


@pytest.mark.parametrize("part", ["state object", "extension", "trigger"])
def test_resume_on_the_same_manager_after_a_refusal_succeeds(tmp_path: Path, part: str, uninterrupted: Any) -> None:
    Training(tmp_path).train(18, fails_at=13)
    training = Training(tmp_path, part)
    with pytest.raises(ValueError, match="another version"):
        training.manager.resume()
    assert training.manager.resume() is not None
    training.train(18)
    assert training.contents()[:2] == uninterrupted


def test_resume_interrupted_while_it_restores_changes_nothing(tmp_path: Path) -> None:
    Training(tmp_path).train(18, fails_at=13)
    training = Training(tmp_path, "state object", KeyboardInterrupt())
    contents = training.contents()
    with pytest.raises(KeyboardInterrupt):
        training.manager.resume()
    assert training.contents() == contents


def test_resume_in_a_directory_in_use_changes_nothing(tmp_path: Path) -> None:
    Training(tmp_path).train(18, fails_at=13)
    training = Training(tmp_path)
    with torch.no_grad():
        training.plain_model.weight.fill_(0.5)
    contents = training.contents()
    with pte.Run(tmp_path, sinks=[], resume=True), pytest.raises(pte.DirectoryInUseError):
        training.manager.resume()
    assert training.contents() == contents
    assert training.manager.resume() is not None


def test_resume_with_a_refusing_part_names_the_part(tmp_path: Path) -> None:
    Training(tmp_path).train(18, fails_at=13)
    for part, name in {
        "state object": "the state object 'version', of type Refusing,",
        "extension": "the extension 'RefusingExtension', of type RefusingExtension,",
        "trigger": "the trigger of 'watch', of type RefusingTrigger,",
        "stop trigger": "the stop trigger, of type RefusingTrigger,",
        "optimizer": "the optimizer 'own', of type RefusingOptimizer,",
        "model": "the model 'main', of type Sequential,",
    }.items():
        with pytest.raises(ValueError, match=name):
            Training(tmp_path, part).manager.resume()


def test_autoload_with_a_refusing_part_leaves_the_log(tmp_path: Path) -> None:
    def make(refusing: Refusing) -> pte.ExtensionsManager:
        return pte.ExtensionsManager(
            nn.Linear(1, 1),
            1,
            [extensions.LogReport(trigger=ITERATION), extensions.snapshot(trigger=(2, "iteration"), autoload=True)],
            state_objects={"version": refusing},
            iters_per_epoch=9,
            out_dir=tmp_path,
        )

    def train(manager: pte.ExtensionsManager, length: int) -> None:
        while manager.iteration < length:
            with manager.run_iteration():
                pte.report({"loss": 1.0})
        manager.close()

    train(make(Refusing()), 3)
    before = read_files(tmp_path)
    manager = make(Refusing(ValueError("another version")))
    with pytest.raises(ValueError, match="another version"):
        train(manager, 9)
    manager.close()
    assert read_files(tmp_path) == before


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # raised by torchdata
def test_resume_with_a_refusing_loader_changes_nothing(tmp_path: Path) -> None:
    def make(num_workers: int) -> tuple[nn.Module, pte.Trainer]:
        torch.manual_seed(0)
        model = nn.Linear(1, 1)
        optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.1)
        optimizer.target = model
        loader = StatefulDataLoader(torch.ones(8, 1), batch_size=2, num_workers=num_workers)  # type: ignore[arg-type]
        updater = updaters.StandardUpdater(loader, optimizer, loss_func=lambda x: model(x).square().mean())
        entries = [extensions.snapshot(trigger=(3, "iteration"), at_end=False), extensions.LogReport()]
        return model, pte.Trainer(updater, (2, "epoch"), tmp_path, entries)

    make(0)[1].run()
    files = read_files(tmp_path)
    model, trainer = make(2)
    before, random_state = model.weight.tolist(), torch.get_rng_state()
    with pytest.raises(ValueError, match="num_workers=2"):
        trainer.resume()
    assert (model.weight.tolist(), trainer.manager.iteration) == (before, 0)
    assert torch.get_rng_state().equal(random_state)
    torch.manual_seed(5)
    assert read_files(tmp_path) == files
    trainer = make(0)[1]
    assert trainer.resume() is not None
    trainer.run()


def test_resume_of_an_average_with_a_refusing_neighbor_keeps_the_average(tmp_path: Path) -> None:
    def make(error: BaseException | None = None) -> tuple[Any, pte.ExtensionsManager]:
        model = nn.Linear(1, 1)
        average = torch.optim.swa_utils.AveragedModel(model)
        objects: Any = {"average": average, "version": Refusing(error)}
        options: Any = {"iters_per_epoch": 2, "state_objects": objects, "out_dir": tmp_path, "sinks": []}
        return average, pte.ExtensionsManager(model, 1, [extensions.snapshot()], **options)

    average, manager = make()
    with manager:
        for _ in manager.batches(range(2)):
            with manager.run_iteration():
                average.update_parameters(nn.Linear(1, 1))
    average, manager = make(ValueError("another version"))
    before = [tensor.clone() for tensor in average.state_dict().values()]
    with pytest.raises(ValueError, match="another version"):
        manager.resume()
    assert all(map(torch.equal, before, average.state_dict().values()))


def test_load_with_a_refusing_object_loads_nothing(tmp_path: Path) -> None:
    Training(tmp_path).train(18, fails_at=13)
    model = Training(tmp_path / "other").model
    before = [tensor.clone() for tensor in model.state_dict().values()]
    with pytest.raises(ValueError, match="another version"):
        pte.load(tmp_path, models={"main": model}, state_objects={"version": Refusing(ValueError("another version"))})
    assert all(map(torch.equal, before, model.state_dict().values()))


def test_resume_of_a_model_with_hooks_that_replace_buffers_returns_to_them(tmp_path: Path) -> None:
    class Queue(nn.Module):
        """Module whose buffer takes the shape of the saved one."""

        def __init__(self, size: int) -> None:
            super().__init__()
            self.register_buffer("items", torch.zeros(size))

        def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
            self.items = torch.empty_like(state_dict[f"{prefix}items"])
            super()._load_from_state_dict(state_dict, prefix, *args)

        def load_state_dict(self, *args: Any, **options: Any) -> Any:
            return super().load_state_dict(*args, **options)

    def make(size: int, other: Any) -> tuple[Any, pte.ExtensionsManager]:
        queue = Queue(size)
        options: Any = {"iters_per_epoch": 1, "out_dir": tmp_path, "sinks": []}
        return queue, pte.ExtensionsManager({"a": queue, "b": other}, 1, [extensions.snapshot()], **options)

    _, manager = make(3, Queue(1))
    for _ in manager.batches([0]):
        with manager.run_iteration():
            pass
    refusing = Queue(1)
    refusing.register_load_state_dict_pre_hook(lambda *_: (_ for _ in ()).throw(ValueError("another version")))
    queue, manager = make(2, refusing)
    with pytest.raises(ValueError, match="another version"):
        manager.resume()
    assert queue.items.shape == (2,)
