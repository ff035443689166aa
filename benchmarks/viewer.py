"""What the viewer's user waits for: docks that open, a first step, an event loop that lags.

    xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/viewer.py [--seconds 60] [--rounds 3] [--explain]

Trains the quick preset in the real worker while a timer ticks every 5 ms in the viewer; the
longest time between two ticks is how long the viewer did not answer. How much of that it
computed itself, and did not wait for a processor that others had, is said beside it; and, on a
virtual machine, how much of the longest gap its host took from both processors together.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import QEventLoop, Qt, QTimer
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication

TICK_MS = 5
GOAL_MS = 150
AGAIN = 5
DOCKS = ("Train", "Segment")


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60, help="how long to train")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--explain", action="store_true", help="say what the viewer did in long gaps")
    parser.add_argument("--open", choices=DOCKS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ["NAPARI_CONFIG"] = ""  # the settings of a fresh napari
    if options.open:
        print(json.dumps(open_times(options.open)))
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_UNET_HOME"] = folder
        print_opening(options.rounds)
        session = Session(options.explain)
        print_first_step(session, options.rounds)
        print_gaps(session, options.seconds)
        session.close()
    assert "tensorflow" not in sys.modules
    assert "keras" not in sys.modules


# Opening the docks ----------------------------------------------------------------------------


def open_times(name: str) -> dict[str, list[float]]:
    """Time the openings of a dock in this process: the first, again, and again beside a warm worker."""
    viewer = new_viewer()
    first, frame, dock = open_dock(viewer, name)
    from napari_unet.gui.dock import workers_of

    workers_of(viewer).join("benchmark")  # the worker stays when the dock goes
    times: dict[str, list[float]] = {"first": [first], "again": [], "warm": []}
    for kind in ("again", "warm"):
        if kind == "warm":
            warm_up(dock.panel)
        for _ in range(AGAIN):
            viewer.window.remove_dock_widget(frame)
            wait(lambda: False, 0.2)
            seconds, frame, dock = open_dock(viewer, name)
            times[kind].append(seconds)
    assert dock.panel._workers.free().pid
    dock.panel._workers.leave("benchmark")
    viewer.close()
    return times


def open_dock(viewer: Any, name: str) -> tuple[float, Any, Any]:
    """Open a dock from the plugin's menu; return the seconds until it is drawn, its frame and the dock."""
    start = time.perf_counter()
    frame, widget = viewer.window.add_plugin_dock_widget("napari-unet", name)
    frame.grab()
    QApplication.processEvents()
    return time.perf_counter() - start, frame, getattr(widget, "native", widget)


def print_opening(rounds: int) -> None:
    """Open each dock in fresh processes, in turn."""
    times: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        for name in DOCKS:
            command = [sys.executable, __file__, "--open", name]
            output = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout
            for kind, seconds in json.loads(output.splitlines()[-1]).items():
                times.setdefault((name, kind), []).extend(seconds)
    print(f"Opening a dock, ms, medians over {rounds} processes\n")
    print(f"{'dock':10} {'first in a session':>20} {'again, no worker':>20} {'again, warm worker':>20}")
    for name in DOCKS:
        medians = [1000 * statistics.median(times[name, kind]) for kind in ("first", "again", "warm")]
        print(f"{name:10} " + " ".join(f"{median:20.0f}" for median in medians))
    print(flush=True)


# The first step -------------------------------------------------------------------------------


class Session:
    """A viewer with the built-in membranes and the Train dock, ready for Start."""

    def __init__(self, explain: bool) -> None:
        self.viewer = new_viewer()
        image, truth = self.viewer.open_sample("napari-unet", "membranes")
        truth.data = (np.asarray(truth.data) == 1).astype(np.uint8)  # membranes on background
        _, _, dock = open_dock(self.viewer, "Train")
        self.panel = dock.panel
        dock.image.box.value, dock.labels.value = image, truth
        dock.unit.value, dock.steps.value = "steps", 100_000
        dock.more["patch"].value, dock.more["batch"].value = 128, 2
        self.gaps = Gaps(explain)
        self.steps = 0
        self.panel.happened.connect(self._count)

    def _count(self, event: Any) -> None:
        self.steps += type(event).__name__ == "StepDone"

    def start(self) -> float:
        """Press Start; return the seconds until the first step is done."""
        self.steps = 0
        begin = time.perf_counter()
        QTest.mouseClick(self.panel.start_button, Qt.MouseButton.LeftButton)
        wait(lambda: self.steps > 0 or not self.panel.running, 300)
        assert self.steps, self.panel.messages.text
        return time.perf_counter() - begin

    def stop(self) -> None:
        """Press Stop and wait for the end."""
        QTest.mouseClick(self.panel.stop_button, Qt.MouseButton.LeftButton)
        wait(lambda: not self.panel.running, 120)

    def cool(self) -> None:
        """Let the worker go."""
        client = self.panel._workers.free()
        client.close()
        wait(lambda: False, 2)

    def close(self) -> None:
        """Close the viewer."""
        self.viewer.close()


def print_first_step(session: Session, rounds: int) -> None:
    """Time Start to the first step, with a cold and with a warm worker in turn."""
    seconds: dict[str, list[float]] = {"cold": [], "warm": []}
    session.gaps.measure("from Start to the first step")
    session.gaps.pause()
    for _ in range(rounds):
        for kind, times in seconds.items():
            session.cool()
            if kind == "warm":
                warm_up(session.panel)
            session.gaps.go_on()
            times.append(session.start())
            session.gaps.pause()
            session.stop()
    print(f"From Start to the first step, median of {rounds}\n")
    print(f"{'worker':10} {'seconds':>8}")
    for kind, times in seconds.items():
        print(f"{kind:10} {statistics.median(times):8.1f}")
    print(flush=True)


# The event loop -------------------------------------------------------------------------------


class Gaps:
    """Measures how long the event loop does not come round, by a timer of 5 ms.

    Parameters
    ----------
    explain : bool
        Look at the main thread's stack while a tick is overdue, and keep it with the gap.
    """

    def __init__(self, explain: bool) -> None:
        self.phases: dict[str, list[tuple[float, float, float]]] = {}
        self.stacks: list[tuple[float, str, str]] = []
        self._phase = ""
        self._last: float | None = None
        self._computed = 0.0
        self._stolen = 0.0
        self._stack = ""
        self._timer = QTimer()
        self._timer.setTimerType(Qt.TimerType.PreciseTimer)
        self._timer.timeout.connect(self._tick)
        if explain:
            threading.Thread(target=self._watch, args=(threading.get_ident(),), daemon=True).start()

    def measure(self, phase: str) -> None:
        """Count gaps for a phase from now on."""
        self._phase = phase
        self.phases[phase] = []
        self.go_on()

    def go_on(self) -> None:
        """Count again."""
        self._last, self._computed, self._stolen = time.perf_counter(), time.thread_time(), stolen()
        self._timer.start(TICK_MS)

    def pause(self) -> None:
        """Count no more."""
        self._timer.stop()
        self._last = None

    def _tick(self) -> None:
        now, computed, taken = time.perf_counter(), time.thread_time(), stolen()
        gap, own = 1000 * (now - (self._last or now)), 1000 * (computed - self._computed)
        self.phases[self._phase].append((gap, own, 1000 * (taken - self._stolen)))
        if self._stack:
            self.stacks.append((gap, self._phase, self._stack))
            self._stack = ""
        self._last, self._computed, self._stolen = now, computed, taken

    def _watch(self, main_thread: int) -> None:
        while True:
            time.sleep(0.01)
            last = self._last
            if last is not None and not self._stack and time.perf_counter() - last > 0.04:
                frame = sys._current_frames()[main_thread]
                self._stack = "".join(traceback.format_stack(frame)[-8:])


def print_gaps(session: Session, seconds: float) -> None:
    """Measure the event loop at rest and while the worker trains."""
    session.cool()
    load, processors = os.getloadavg()[0], os.cpu_count()
    session.gaps.measure("nothing runs")
    wait(lambda: False, min(seconds, 20))
    session.gaps.pause()
    warm_up(session.panel)
    session.start()
    name = "training, curves live"
    session.gaps.measure(name)
    before = session.steps
    wait(lambda: not session.panel.running, seconds)
    done = session.steps - before
    session.gaps.measure("Stop, to the end of the run")
    session.stop()
    session.gaps.pause()
    print(f"Gaps of the viewer's event loop, ms, timer of {TICK_MS} ms; {done} steps in {seconds:.0f} s")
    print(f"The load of {processors} processors before: {load:.1f}\n")
    over = f"over {GOAL_MS} ms"
    print(
        f"{'while':30} {'ticks':>7} {'median':>7} {'p99':>7} {'longest':>8} {over:>12} {'most computed':>14} {'stolen in longest':>18}"
    )
    for phase, ticks in session.gaps.phases.items():
        gaps, own, taken = np.array(ticks).T
        p50, p99 = np.percentile(gaps, (50, 99))
        print(
            f"{phase:30} {len(gaps):7} {p50:7.1f} {p99:7.1f} {gaps.max():8.1f} {(gaps > GOAL_MS).sum():12} {own.max():14.1f} "
            f"{taken[gaps.argmax()]:18.0f}"
        )
    gaps, _, taken = np.array(session.gaps.phases[name]).T
    print(f"\nGoal while training: under {GOAL_MS} ms: {'met' if gaps.max() < GOAL_MS else 'missed'}")
    print(f"Gaps above it of which the host took less than the excess: {(gaps - taken > GOAL_MS).sum()}")
    for gap, phase, stack in sorted(session.gaps.stacks, reverse=True)[:12]:
        print(f"\n{gap:.0f} ms while {phase}:\n{stack}")


def stolen() -> float:
    """Seconds that the host of a virtual machine has kept its processors from it, all together; 0 where unknown."""
    if not sys.platform.startswith("linux"):
        return 0.0
    processors = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(processors[8]) / os.sysconf("SC_CLK_TCK")


# Common ---------------------------------------------------------------------------------------


def new_viewer() -> Any:
    """Open a viewer as a user has it on the screen."""
    import napari

    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1500, 950)
    wait(lambda: False, 1)
    return viewer


def warm_up(panel: Any) -> None:
    """Start a worker and wait until it has imported TensorFlow."""
    client = panel._workers.free()
    ready = []
    on_line = client._on_line
    # Before its first job, a worker's second Ready follows the import; the docks have no use for it.
    client._on_line = lambda line: (ready.append("Ready" in line), on_line(line))
    client.warm()
    wait(lambda: sum(ready) >= 2, 120)
    del client._on_line
    assert sum(ready) >= 2, client.log


def wait(condition: Callable[[], bool], seconds: float) -> None:
    """Let the event loop run until a condition holds or the time is over."""
    loop, timer = QEventLoop(), QTimer()
    deadline = time.perf_counter() + seconds
    timer.timeout.connect(lambda: loop.quit() if condition() or time.perf_counter() > deadline else None)
    timer.start(20)
    loop.exec()
    timer.stop()


if __name__ == "__main__":
    main()
