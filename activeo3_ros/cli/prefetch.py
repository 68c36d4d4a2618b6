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

"""`activeo3 prefetch`: fetch all that a preset needs, so that nothing is fetched at run time."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from ..assets.downloads import fetch_model
from ..assets.fetching import prefetch
from ..assets.packages import NEEDED_BY
from ..assets.weights import model_of
from ..core import InvalidInput
from ..presets import Preset, load_preset
from .main import SUCCESS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument("preset", metavar="PRESET", help=f"{', '.join(NEEDED_BY)}, or a preset with a large model")
    parser.add_argument("--model", help="for a large model: another hub id, or a directory, than the preset names")
    parser.add_argument("--source", default="", help="for a large model: a directory or URL with its SHA256SUMS")


def run(args: argparse.Namespace) -> int:
    """Fetch whatever is missing and print where everything lies.

    Raises:
        InvalidInput: The preset does not exist, or has no large model that `--model` and `--source` could name.
        AssetError: Something cannot be had.
    """
    models = [args.model] if args.model else []
    if args.preset not in NEEDED_BY:
        models = models or models_of(load_preset(args.preset))
    elif models or args.source:
        raise InvalidInput(f"--model and --source are for presets with a large model, which {args.preset!r} has not")
    for model in models:
        print(fetch_model(model, args.source, lambda what: print(f"activeo3: {what}", file=sys.stderr, flush=True)))
    if not models:
        for path in prefetch_with_progress(args.preset):
            print(path)
    return SUCCESS


def models_of(preset: Preset) -> list[str]:
    """The large models that the components of a preset run in this process."""
    parts = [part for part in (preset.sensing, preset.task, preset.segmenter) if part is not None]
    return list(dict.fromkeys(model for part in parts if (model := model_of(part.settings))))


def prefetch_with_progress(preset: str) -> list[Path]:
    """Fetch the packages of a preset that are not there yet, with a bar or lines of progress on stderr.

    Args:
        preset: A key of `NEEDED_BY`.

    Returns:
        Where each asset lies.
    """
    with tqdm(file=sys.stderr, unit="step", leave=False, disable=not sys.stderr.isatty()) as bar:

        def show(what: str, done: int, total: int) -> None:
            if bar.disable:
                print(f"activeo3: {what}", file=sys.stderr, flush=True)
            bar.total, bar.n = total, done
            bar.set_description(what)

        return prefetch(preset, show)
