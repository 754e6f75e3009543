"""Builds every test program once and plays them, some side by side: called by tests/run, which installs what they need.

Stories wait for real servers more than they work, so several at a time fill two cores. Scenarios and guards turned off play
alone. A story that fails beside others is played once more, alone, since a machine that is too busy can starve it:
what holds then is named at the end, for somebody to look at, and does not fail the run, eight stories at most.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# How long one program may take, in seconds.
PATIENCE = 1800
# So many stories may be tried again.
SECOND_TRIES = 8
# Stories at a time, where it is not libtest's own number.
THREADS = {"hearth/it": 5, "hearth/faults": 2, "hearth/hostile": 2, "hearth/sight": 2}
# Programs that play alone, one after the other, behind all others.
ALONE = ["hearth/scenarios"]
# Those that take minutes, in lanes that take about as long as each other; a third lane is all others'.
LANES = [["hearth/it"], ["hearth/faults", "hearth/hostile"]]

printing = threading.Lock()
# Programs that run, each with the servers that it has started in a group of its own.
running = set()


def end(pid):
    """Ends a program and all that it has started, if there is anything."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


class Program:
    """A test program: its package and name, where it is and what it is played with."""

    def __init__(self, name, executable, folder, filters=()):
        self.name, self.executable, self.folder, self.filters = name, executable, folder, list(filters)

    def plays(self, words=()):
        """Plays it to its end; whether all held, and what it said. Its output is printed as a whole."""
        began = time.monotonic()
        threads = [f"--test-threads={THREADS[self.name]}"] if self.name in THREADS and not words else []
        command = [self.executable, *self.filters, *words, *threads]
        with tempfile.TemporaryFile() as output:
            # Without standard input, and what it says in one file, in its order.
            process = subprocess.Popen(
                command,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            running.add(process.pid)
            try:
                status = process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                status = f"no end in {PATIENCE} s"
            end(process.pid)
            process.wait()
            running.discard(process.pid)
            output.seek(0)
            said = output.read().decode(errors="replace")
        with printing:
            print(f"\n=== {self.name}: {time.monotonic() - began:.0f} s\n{said}", flush=True)
            if status != 0:
                print(f"=== {self.name} failed: {status}", flush=True)
        return status == 0, said

    def failures(self, said):
        """The stories that failed, as libtest names them behind everything else; none where it did not come to its end."""
        _, stands, behind = said.rpartition("\nfailures:\n")
        names, ends, _ = behind.partition("\ntest result: FAILED.")
        return re.findall(r"^    (\S+)$", names, re.MULTILINE) if stands and ends else []


def built(*words):
    """Builds test programs."""
    command = ["cargo", "test", "--locked", "--no-run", "--message-format=json-render-diagnostics", *words]
    build = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False)
    if build.returncode != 0:
        sys.exit(build.returncode)
    programs = []
    for line in build.stdout.splitlines():
        told = json.loads(line)
        if told["reason"] == "compiler-artifact" and told["profile"]["test"] and told["executable"]:
            folder = Path(told["manifest_path"]).parent
            package = "hearth" if folder == ROOT else folder.name
            kind = "" if told["target"]["kind"] == ["test"] else f" ({told['target']['kind'][0]})"
            programs.append(Program(f"{package}/{told['target']['name']}{kind}", told["executable"], folder))
    return programs


class Run:
    """What has come of it so far."""

    def __init__(self):
        self.failed, self.failures, self.held = [], [], []

    def plays(self, programs):
        """One after the other."""
        for program in programs:
            try:
                holds, said = program.plays()
            except Exception as error:  # A lane that ends early must not look like one that held.
                self.failed.append(f"{program.name}: {error!r}")
                continue
            if holds:
                continue
            failures = program.failures(said)
            self.failures += [(program, failure) for failure in failures]
            if not failures:
                self.failed.append(program.name)

    def beside(self, *lanes):
        """Each lane beside the others."""
        threads = [threading.Thread(target=self.plays, args=(lane,), daemon=True) for lane in lanes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.second_tries()

    def second_tries(self):
        """Plays what failed beside others once more, alone."""
        is_too_many = len(self.failures) > SECOND_TRIES
        for program, failure in self.failures:
            alone = Program(program.name, program.executable, program.folder, ["--exact", failure])
            if is_too_many:
                holds = False
            else:
                holds, said = alone.plays(["--test-threads=1"])
                holds = holds and "\ntest result: ok. 1 passed" in said
            (self.held if holds else self.failed).append(f"{program.name} {failure}")
        self.failures = []

    def alone(self, program):
        """One that nothing plays beside: what fails in it has failed."""
        self.plays([program])
        self.failed += [f"{program.name} {failure}" for _, failure in self.failures]
        self.failures = []


def main():
    began = time.monotonic()
    run = Run()
    programs = built("--workspace")
    print(f"built: {time.monotonic() - began:.0f} s", flush=True)
    by_name = {program.name: program for program in programs}
    named = [name for lane in [*LANES, ALONE] for name in lane]
    if not by_name.keys() >= set(named):
        sys.exit("tests/play.py: the programs are called otherwise now")
    others = [program for program in programs if program.name not in named]
    run.beside(*([by_name[name] for name in lane] for lane in LANES), others)
    for name in ALONE:
        run.alone(by_name[name])

    # Guards turned off one at a time to see a checker fail, and tasks that die or hang: the one extra build, which takes the
    # place of the server that all others play with.
    (guards,) = built("--features", "hearth/sabotage", "--test", "faults")
    guards.filters = ["sabotage::", "vital::"]
    run.alone(guards)

    docs = ["cargo", "test", "--workspace", "--locked", "--doc"]
    if subprocess.run(docs, cwd=ROOT, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        run.failed.append("the examples in docs")
    print(f"\nall of it: {time.monotonic() - began:.0f} s")
    for story in run.held:
        print(f"held at its second try only, alone: {story}")
    for name in run.failed:
        print(f"FAILED: {name}")
    sys.exit(1 if run.failed else 0)


try:
    main()
finally:
    # Where somebody breaks it off.
    for pid in list(running):
        end(pid)
