"""Courses that are trained side by side, each on a thread of its own, with one checkpoint of all.

They have nothing in common, so each comes out as it would alone, one after the other.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

import torch

from ae_pipeline.training.checkpoints import Checkpoints
from ae_pipeline.training.context.course import Course, Losses


class _StoppedError(Exception):
    """Another course failed, or the training is to end."""


class Abreast:
    """Runs courses, by their names."""

    def __init__(self, courses: Mapping[str, Course], checkpoints: Checkpoints):
        self._courses, self._checkpoints = courses, checkpoints
        # A course is saved where it is not within a step; who waits for several takes them in this order.
        self._within = {name: threading.Lock() for name in courses}
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._failed: BaseException | None = None
        for name, course in courses.items():
            checkpoints.follow(name, course)

    def begun(self) -> list[dict[str, Losses]]:
        """What all courses had done of each epoch, if they were taken up."""
        done = min(len(course.losses) for course in self._courses.values())
        return [{name: course.losses[number] for name, course in self._courses.items()} for number in range(done)]

    def run(self, on_epoch: Callable[[int, dict[str, Losses]], None]) -> None:
        """Go to the end; `on_epoch` is called here with the number of each epoch that all courses have done.

        What a course raises is raised here, when all have stopped; so is what `on_epoch` raises.
        """
        done, epochs = len(self.begun()), max(course.epochs for course in self._courses.values())
        threads = [threading.Thread(target=self._go, args=item, daemon=True) for item in self._courses.items()]
        for thread in threads:
            thread.start()
        try:
            for number in range(done, epochs):
                with self._changed:
                    self._changed.wait_for(lambda: self._failed or self._have_done(number + 1))  # noqa: B023
                if self._failed:
                    break
                on_epoch(number + 1, {name: course.losses[number] for name, course in self._courses.items()})
                with self._between_steps():
                    self._checkpoints.step(epoch_ended=True)
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
        if self._failed:
            raise self._failed

    def _have_done(self, epochs: int) -> bool:
        return all(len(course.losses) >= epochs for course in self._courses.values())

    def _go(self, name: str, course: Course) -> None:
        try:
            torch.set_num_threads(1)  # a number that threads have each of their own
            for _ in course.run(lambda: self._step(name)):
                with self._changed:
                    self._changed.notify_all()
        except _StoppedError:
            pass
        except BaseException as error:  # raised again in the thread that waits
            self._stop.set()
            with self._changed:
                self._failed = error
                self._changed.notify_all()

    @contextmanager
    def _step(self, name: str) -> Iterator[None]:
        """Within it, the state of this course is not whole."""
        if self._stop.is_set():
            raise _StoppedError
        with self._within[name]:
            yield
        if self._checkpoints.is_due:
            with self._between_steps():
                self._checkpoints.step()

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Hold all courses, each where its state is whole."""
        with ExitStack() as stack:
            for lock in self._within.values():
                stack.enter_context(lock)
            yield
