"""What a run leaves for people and programs: one HTML file that opens offline, `metrics.json` and a CSV."""

from __future__ import annotations

import base64
import csv
import html
import io
import json
import math
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from .. import __version__
from ..codecs.picture import draw
from ..core import Box, Cost, Detection, InvalidInput, Query, Region, Result, Status
from ..core.optional import installed_version
from .datasets import Dataset, Sample
from .interactive import ZOOMS
from .methods import ORACLE
from .plots import Point, curve, distribution
from .published import PublishedRow
from .scoring import CORRECTED, Difference, Estimate, MethodScores
from .work import read_items, write_whole

TABLE_METRICS = ("AP", "AP50", "AR", "AP small", "AR small", "AR50 small", "AR10 small")
CURVE_METRICS = ("AR small", "AR", "accuracy", "mask mIoU", f"{CORRECTED} {ZOOMS}")
"""The first of these that the methods have is drawn against the budget."""
MAX_PICTURE_PX = 1280
PICTURES = 3
"""Worst and best frames that are shown, of each."""
TRUTH_COLOUR = (80, 220, 80)
PACKAGES = ("numpy", "opencv-python-headless", "onnxruntime", "faster-coco-eval", "torch", "transformers", "vllm")


@dataclass(frozen=True)
class Run:
    """What was asked, and where and how it ran."""

    question: str
    command: Sequence[str]
    seed: int
    workers: int
    replicates: int


def write_report(
    out: Path,
    run: Run,
    dataset: Dataset,
    scores: Sequence[MethodScores],
    differences: Sequence[Difference],
    published: Sequence[PublishedRow] = (),
) -> None:
    """Write `report.html`, `metrics.json` and `metrics.csv` into `out`."""
    write_whole(
        out / "metrics.json", json.dumps(_as_json(run, dataset, scores, differences, published), indent=1) + "\n"
    )
    write_whole(out / "metrics.csv", _as_csv(scores))
    write_whole(out / "report.html", _as_html(out, run, dataset, scores, differences, published))


def facts_of_machine() -> dict[str, str]:
    """Where a run was made and with what, for whoever compares its numbers."""
    versions = {"activeo3_ros": __version__, "Python": platform.python_version()}
    versions |= {name: version for name in PACKAGES if (version := installed_version(name))}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "machine": f"{platform.machine()}, {_processor()}, {cores} cores",
        "system": f"{platform.system()} {platform.release()}",
        "graphics": _graphics(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown processor"
    )


def _graphics() -> str:
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return "none used"
    return ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))


def text_table(scores: Sequence[MethodScores]) -> str:
    """The main numbers in lines of text."""
    names = _table_metrics(scores)[:5]
    header = ["method", "regions", *names, "coverage", "views", "ms p50", "failed"]
    rows = [header]
    for s in scores:
        quality = [_number(s.quality[name].value) for name in names]
        cost = [
            _number(s.regions["coverage"].value),
            f"{s.cost['views']:.1f}",
            f"{s.cost['ms_p50']:.0f}",
            str(s.failed),
        ]
        rows.append([s.method.name, str(s.method.regions), *quality, *cost])
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    return "\n".join(
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    )


def text_difference(difference: Difference) -> str:
    """One line for people."""
    e = difference.estimate
    verdict = "clear" if difference.is_clear else "not clear: the interval holds zero"
    names = f"{difference.metric}: {difference.a} - {difference.b}"
    return f"{names} = {e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}], {verdict}"


def _as_json(
    run: Run,
    dataset: Dataset,
    scores: Sequence[MethodScores],
    differences: Sequence[Difference],
    published: Sequence[PublishedRow],
) -> dict[str, Any]:
    return {
        "question": run.question,
        "command": shlex.join(run.command),
        "seed": run.seed,
        "workers": run.workers,
        "bootstrap_replicates": run.replicates,
        "dataset": {"name": dataset.name, "samples": len(dataset.samples), **dataset.facts},
        "environment": facts_of_machine(),
        "methods": [
            {
                "id": s.method.id,
                **s.method.facts(),
                "regions": s.method.regions,
                "quality": {name: value.to_json() for name, value in s.quality.items()},
                "by_category": {
                    name: {label: None if math.isnan(v) else v for label, v in values.items()}
                    for name, values in s.by_category.items()
                },
                "region_quality": {name: value.to_json() for name, value in s.regions.items()},
                "cost": {name: None if math.isnan(v) else v for name, v in s.cost.items()},
                "failed": s.failed,
                "coarse": s.coarse,
                "detections_without_score": s.unscored,
                "labels_that_are_no_category": s.unknown_labels,
            }
            for s in scores
        ],
        "differences": [
            {"a": d.a, "b": d.b, "metric": d.metric, "estimate": d.estimate.to_json(), "is_clear": d.is_clear}
            for d in differences
        ],
        "published": [row.to_json() for row in published],
    }


def _as_csv(scores: Sequence[MethodScores]) -> str:
    """One line for each method and metric."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["method", "regions", "metric", "value", "low", "high"])
    for s in scores:
        for name, estimate in {**s.quality, **{f"regions {k}": v for k, v in s.regions.items()}}.items():
            writer.writerow(
                [s.method.name, s.method.regions, name, *("" if v is None else v for v in estimate.to_json())]
            )
        for name, value in s.cost.items():
            writer.writerow(
                [s.method.name, s.method.regions, f"cost {name}", "" if math.isnan(value) else value, "", ""]
            )
        writer.writerow([s.method.name, s.method.regions, "failed frames", s.failed, "", ""])
    return buffer.getvalue()


def _as_html(
    out: Path,
    run: Run,
    dataset: Dataset,
    scores: Sequence[MethodScores],
    differences: Sequence[Difference],
    published: Sequence[PublishedRow],
) -> str:
    environment = facts_of_machine()
    times = {
        s.method.id: [
            item["timings_ms"]["total"] for item in read_items(out, dataset, s.method) if "total" in item["timings_ms"]
        ]
        for s in _at_largest_budget(scores)
    }
    facts = {
        "data": f"{dataset.name}, {len(dataset.samples)} frames, {len(dataset.truth['annotations'])} objects",
        **{f"data: {name}": str(value) for name, value in dataset.facts.items()},
        "command": shlex.join(run.command),
        "seed": str(run.seed),
        "processes": f"{run.workers}; times are of frames that were processed beside one another"
        if run.workers > 1
        else "1",
        "intervals": f"95 %, bootstrap over frames, {run.replicates} replicates",
        **environment,
    }
    sections = [
        f"<h1>{html.escape(run.question)}</h1>",
        "<h2>Quality</h2>",
        _quality_table(scores),
        "<p>AP and AR are COCO's (IoU 0.5 to 0.95; AP50 and AR10: at 0.5 and 0.1), small is below 32² px of the frame. "
        "Brackets: 95 % intervals. Bold: the best but for the oracle, which is told the truth. "
        "A frame that failed counts as one in which nothing was found.</p>",
        *_notes(scores),
        *_published_section(published),
        *_difference_section(differences),
        *_category_section(scores),
        "<h2>Quality against budget</h2>",
        *_curves(scores),
        "<h2>Latency</h2>",
        f'<div class="figure">{distribution(times)}</div>',
        "<h2>Regions and cost</h2>",
        _cost_table(scores),
        "<p>Coverage: share of objects at least half of which lie in one region. Purity: share of the regions' pixels "
        "that lie on objects. Overlap: mean IoU of two regions. Cost is a mean a frame.</p>",
        *_pictures(out, dataset, scores),
        "<h2>How this was made</h2>",
        '<table class="facts">' + "".join(_fact_row(name, value) for name, value in facts.items()) + "</table>",
    ]
    return PAGE.replace("$TITLE", html.escape(run.question)).replace("$BODY", "\n".join(sections))


def _quality_table(scores: Sequence[MethodScores]) -> str:
    names = _table_metrics(scores)
    best = {name: max((s.quality[name].value for s in scores if s.method.name != ORACLE and name in s.quality
                       and math.isfinite(s.quality[name].value)), default=math.nan) for name in names}  # fmt: skip
    rows = []
    for s in scores:
        cells = []
        for name in names:
            value = s.quality.get(name, Estimate(math.nan))
            mark = ' class="best"' if value.value == best[name] and s.method.name != ORACLE else ""
            cells.append(f"<td{mark}>{_with_interval(value)}</td>")
        rows.append(_method_row(s, cells))
    return _table(("method", "regions", *names), rows)


def _cost_table(scores: Sequence[MethodScores]) -> str:
    rows = []
    for s in scores:
        cost = s.cost
        values = [_number(s.regions[name].value) for name in ("coverage", "purity", "overlap")]
        values += [f"{cost['views']:.1f}", f"{cost['pixels'] / 1e6:.2f}", f"{cost['tokens']:.0f}"]
        values += [f"{cost['ms_p50']:.0f}", f"{cost['ms_p95']:.0f}", str(s.failed)]
        rows.append(_method_row(s, [f"<td>{value}</td>" for value in values]))
    head = ("coverage", "purity", "overlap", "views", "Mpixel", "tokens", "ms p50", "ms p95", "frames failed")
    return _table(("method", "regions", *head), rows)


def _method_row(s: MethodScores, cells: Sequence[str]) -> str:
    return f"<tr><th>{html.escape(s.method.name)}</th><td>{s.method.regions}</td>{''.join(cells)}</tr>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    header = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    return f'<div class="wide"><table><thead><tr>{header}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _table_metrics(scores: Sequence[MethodScores]) -> list[str]:
    """The columns of the table: the main ones of detection, or whatever else was measured."""
    measured = list(dict.fromkeys(name for s in scores for name in s.quality))
    chosen = [name for name in (*TABLE_METRICS, "mask mIoU") if name in measured]
    return chosen if TABLE_METRICS[0] in measured else measured


def _notes(scores: Sequence[MethodScores]) -> list[str]:
    notes = []
    for s in scores:
        if s.unscored:
            notes.append(f"{s.method.id}: {s.unscored} detections have no score; they rank after all that have one.")
        if s.unknown_labels:
            labels = ", ".join(f"{label} ({count})" for label, count in s.unknown_labels.items())
            notes.append(f"{s.method.id}: found labels that are no category of the truth and do not count: {labels}.")
        if s.failed:
            notes.append(f"{s.method.id}: {s.failed} frames failed.")
    return [f'<p class="note">{html.escape(note)}</p>' for note in notes]


def _published_section(published: Sequence[PublishedRow]) -> list[str]:
    if not published:
        return []
    rows = "".join(
        f'<tr class="{"published" if row.is_published else "measured"}"><th>{html.escape(row.method)}</th>'
        + "".join(f"<td>{html.escape(row.numbers.get(name, ''))}</td>" for name in published[0].numbers)
        + f"<td>{html.escape(row.origin)}</td></tr>"
        for row in published
    )
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("method", *published[0].numbers, "origin"))
    return [
        "<h2>Beside what was published</h2>",
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
        "<p>Published numbers were measured by others, on other machines and with a selection of images that is not "
        "public. They are not comparable with the rows that were measured here beyond their order of magnitude.</p>",
    ]


def _difference_section(differences: Sequence[Difference]) -> list[str]:
    if not differences:
        return []
    rows = "".join(
        f"<tr><th>{html.escape(d.a)} minus {html.escape(d.b)}</th><td>{html.escape(d.metric)}</td>"
        f"<td>{d.estimate.value:+.3f} [{d.estimate.low:+.3f}, {d.estimate.high:+.3f}]</td>"
        f"<td>{'clear' if d.is_clear else 'the interval holds zero: not shown'}</td></tr>"
        for d in differences
    )
    titles = ("methods, with their regions", "metric", "difference, 95 % interval", "verdict")
    head = f"<tr>{''.join(f'<th>{title}</th>' for title in titles)}</tr>"
    return ["<h2>Paired differences</h2>", f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"]


def _category_section(scores: Sequence[MethodScores]) -> list[str]:
    """AP and AR of each category, of each name's method that looks at the most regions."""
    shown = _at_largest_budget(scores)
    categories = list(shown[0].by_category.get("AP", {}))
    if len(categories) < 2:
        return []
    head = "".join(f"<th>{html.escape(text)}</th>" for text in ("category", *(s.method.id for s in shown)))
    rows = []
    for category in categories:
        cells = (f"{_number(s.by_category['AP'][category])} / {_number(s.by_category['AR'][category])}" for s in shown)
        rows.append(f"<tr><th>{html.escape(category)}</th>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return ["<h2>By category, AP / AR</h2>", f'<div class="wide">{table}</div>']


def _curves(scores: Sequence[MethodScores]) -> list[str]:
    drawable = [name for name in CURVE_METRICS if any(math.isfinite(_value(s, name).value) for s in scores)]
    if not drawable:
        return ["<p>No method has a number to draw.</p>"]
    metric = drawable[0]
    by_regions: dict[str, list[Point]] = {}
    by_pixels: dict[str, list[Point]] = {}
    for s in scores:
        e = _value(s, metric)
        if math.isfinite(e.value):
            by_regions.setdefault(s.method.name, []).append(Point(s.method.regions, e.value, e.low, e.high))
            by_pixels.setdefault(s.method.name, []).append(Point(s.cost["pixels"] / 1e6, e.value, e.low, e.high))
    return [
        f'<div class="figure">{curve(by_regions, "regions looked at closer", metric)}</div>',
        f'<div class="figure">{curve(by_pixels, "million pixels given to the models, a frame", metric)}</div>',
    ]


def _value(s: MethodScores, name: str) -> Estimate:
    return s.quality.get(name, Estimate(math.nan))


def _at_largest_budget(scores: Sequence[MethodScores]) -> list[MethodScores]:
    """Of each name the method that looks at the most regions."""
    largest: dict[str, MethodScores] = {}
    for s in scores:
        if s.method.name not in largest or s.method.regions > largest[s.method.name].method.regions:
            largest[s.method.name] = s
    return list(largest.values())


def _pictures(out: Path, dataset: Dataset, scores: Sequence[MethodScores]) -> list[str]:
    """The frames of the first method, at its largest budget, in which it missed the most and the least."""
    shown = _at_largest_budget(scores)[0]
    judged = [index for index, recall in enumerate(shown.frame_recall) if math.isfinite(recall)]
    ranked = sorted(judged, key=lambda index: shown.frame_recall[index])
    items = read_items(out, dataset, shown.method)
    worst, best = ranked[:PICTURES], ranked[PICTURES:][-PICTURES:][::-1]
    sections = []
    for title, chosen in (("Worst frames", worst), ("Best frames", best)):
        if chosen:
            sections.append(f"<h2>{title} of {html.escape(shown.method.id)}</h2>")
        for index in chosen:
            sample = dataset.samples[index]
            picture = _picture(dataset, sample, items[index])
            caption = f"{sample.name}: {100 * shown.frame_recall[index]:.0f} % of the objects found; truth in green"
            if picture is None:
                sections.append(f"<p>{html.escape(sample.name)}: the frame cannot be read.</p>")
            else:
                data = base64.b64encode(picture).decode("ascii")
                sections.append(
                    f'<figure><img alt="{html.escape(caption)}" src="data:image/jpeg;base64,{data}">'
                    f"<figcaption>{html.escape(caption)}</figcaption></figure>"
                )
    return sections


def _picture(dataset: Dataset, sample: Sample, item: Mapping[str, Any]) -> bytes | None:
    """A JPEG of a frame with the truth, the regions and what was found; None if the frame cannot be read."""
    try:
        image = sample.load().image
    except InvalidInput:
        return None
    drawn = draw(image, result_of_item(item))
    for x, y, width, height in dataset.boxes(sample.id).tolist():
        cv2.rectangle(
            drawn, (round(x) - 3, round(y) - 3), (round(x + width) + 3, round(y + height) + 3), TRUTH_COLOUR, 1
        )
    scale = min(1.0, MAX_PICTURE_PX / max(drawn.shape[:2]))
    if scale < 1:
        drawn = np.asarray(cv2.resize(drawn, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)
    return bytes(cv2.imencode(".jpg", drawn, [cv2.IMWRITE_JPEG_QUALITY, 82])[1].tobytes())


def result_of_item(item: Mapping[str, Any]) -> Result:
    """What a file of results says, as far as it can be drawn."""
    return Result(
        item["width"],
        item["height"],
        Query(item["query"]),
        Status[item["status"].upper()],
        item.get("status_message", ""),
        regions=tuple(Region(_box(r), r["label"], _nan(r["score"]), _nan(r["zoom"])) for r in item["regions"]),
        detections=tuple(Detection(d["label"], _nan(d["score"]), _box(d), d["region"]) for d in item["detections"]),
        answer=item["answer"],
        timings_ms=item["timings_ms"],
        cost=Cost(item["cost"]["views"], item["cost"]["pixels"], item["cost"]["tokens"]),
    )


def _box(row: Mapping[str, float]) -> Box:
    return Box(row["x"], row["y"], row["width"], row["height"])


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else "n/a"


def _with_interval(value: Estimate) -> str:
    if not math.isfinite(value.low):
        return _number(value.value)
    return f"{_number(value.value)} <small>[{value.low:.3f}, {value.high:.3f}]</small>"


def _fact_row(name: str, value: str) -> str:
    return f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"


def as_printed(metric: str, value: Estimate) -> str:
    """As the paper prints it: APs and ARs in percent, IoUs as they are."""
    if not math.isfinite(value.value):
        return "n/a"
    return f"{100 * value.value:.1f}" if metric.startswith("A") else f"{value.value:.3f}"


PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$TITLE</title>
<style>
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1b1b; background: #fff; }
body { margin: 2rem auto; max-width: 1180px; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin: 0 0 1rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem; border-bottom: 1px solid #ddd; padding-bottom: .2rem; }
table { border-collapse: collapse; font-size: 13px; }
th, td { padding: .25rem .55rem; border-bottom: 1px solid #e4e4e4; text-align: right; white-space: nowrap; }
th:first-child, .facts td { text-align: left; white-space: normal; }
thead th { border-bottom: 2px solid #888; }
td small { color: #666; display: block; }
.best { font-weight: 600; }
.wide { overflow-x: auto; }
.facts th { white-space: nowrap; font-weight: 500; color: #555; vertical-align: top; }
.facts td { overflow-wrap: anywhere; }
.note { background: #fff6dd; padding: .3rem .6rem; margin: .4rem 0; }
.published td, .published th { color: #777; font-style: italic; }
.figure { display: inline-block; width: min(100%, 570px); }
.figure svg { width: 100%; height: auto; }
figure { margin: 0 0 1rem; }
figure img { max-width: 100%; display: block; }
figcaption { color: #555; font-size: 13px; }
</style>
</head>
<body>
$BODY
</body>
</html>
"""
