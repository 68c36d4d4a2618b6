"""Options that several subcommands share: what to look for, with which preset, within which budget."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import replace

from ..core import Budget, Query
from ..core.budget import MAX_REGIONS
from ..presets import Preset, preset_names
from .main import whole_number


def add_query_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look for."""
    parser.add_argument("--query", help='what to find or to read, for example "the number on the police car"')
    parser.add_argument("--classes", type=names, help="what to detect, separated by commas, for example car,person")
    parser.add_argument("--masks", action="store_true", help="also give the pixels of each object")


def add_preset_arguments(parser: argparse.ArgumentParser) -> None:
    """Which models, and how many regions."""
    parser.add_argument(
        "--preset", default="embedded", help=f"{', '.join(preset_names())}, or a .yaml file (default: %(default)s)"
    )
    parser.add_argument(
        "--max-regions",
        type=whole_number(0, MAX_REGIONS),
        metavar="K",
        help=f"regions to look closer at, 0 to {MAX_REGIONS} (default: the preset's)",
    )


def query_of(args: argparse.Namespace, preset: Preset) -> Query:
    """What the user asks for; what the preset asks for by itself if they ask for nothing."""
    masks = args.masks or preset.query.masks
    if args.query is None and args.classes is None:
        return replace(preset.query, masks=masks)
    return Query(args.query or "", args.classes or (), masks)


def budget_of(args: argparse.Namespace, preset: Preset) -> Budget:
    """The preset's budget with the number of regions that the user asks for."""
    return preset.budget if args.max_regions is None else replace(preset.budget, max_regions=args.max_regions)


def names(text: str) -> tuple[str, ...]:
    """An argument type: names separated by commas."""
    found = tuple(name.strip() for name in text.split(",") if name.strip())
    if not found:
        raise argparse.ArgumentTypeError("must name at least one class, for example car,person")
    return found


def number(low: float, high: float = math.inf) -> Callable[[str], float]:
    """An argument type: a number from `low` to `high`."""

    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"must be a number, got {text!r}") from None
        if not low <= value <= high or math.isinf(value):
            limit = f"{low:g} to {high:g}" if high < math.inf else f"a number from {low:g} on"
            raise argparse.ArgumentTypeError(f"must be {limit}, got {text}")
        return value

    return parse
