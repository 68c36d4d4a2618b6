"""Scripts in the shape of the released demo, with words of the tests' own."""

from __future__ import annotations

import string
from pathlib import Path

REGIONS = (
    "Name up to three places that tell about '{question}'. Think in <think></think>, "
    'then list {"bbox_2d": [x1, y1, x2, y2], "label": "place"} in <answer></answer>. It costs $5.'
)
BOXES = "Box each {object} and reply in JSON. "
SYSTEM = "You answer briefly"

SCRIPT = string.Template('''\
import json, os
import absent_package_of_a_demo

model = absent_package_of_a_demo.load("YOUR_MODEL_PATH")


def ask(path, prompt, system_prompt="$system", limit=1300):
    messages = [
        {"role": "system", "content": system_prompt},
        {"role": "user", "content": [{"type": "text", "text": prompt}, {"image": path}]},
    ]
    return model.generate(messages, max_new_tokens=limit)


def box(paths, object, system_prompt="$system", question=None):
    conversations = []
    for path in paths:
        messages = [
            {"role": "system", "content": system_prompt},
            {
                "role": "user",
                "content": [
                    {"image": path, "min_pixels": 900 * 28 * 28},
                    {"type": "text", "text": $boxes if question is None else question},
                ],
            },
        ]
        conversations.append(messages)
    return model.generate(conversations)


def box_one(path, object):
    """Never called."""
    messages = [{"role": "user", "content": [{"image": path}, {"type": "text", "text": f"Where is the {object}?"}]}]
    return model.generate(messages)


def look(path, prompt, object=None, question=None):
    regions = ask(path, prompt)
    return box([path for _ in regions], object, question=question)


$assignments

for file in os.listdir("pictures/"):
    row = json.load(open(file))
    question = row["question"]
    prompt = question
    look(file, prompt, object="animal", question=prompt)
    look(file, $filled, object="animal", question=prompt)
''')


def script(
    assignments: str | None = None,
    filled: str = 'TEMPLATE.replace("{question}", prompt)',
    boxes: str = f"f{BOXES!r}",
) -> str:
    """The text of a script.

    Args:
        assignments: What comes before the loop over the pictures; None for the template of the regions.
        filled: The expression of the request for regions.
        boxes: The expression of the request for boxes.
    """
    assignments = f"TEMPLATE = {REGIONS!r}" if assignments is None else assignments
    return SCRIPT.substitute(system=SYSTEM, assignments=assignments, filled=filled, boxes=boxes)


def write_script(folder: Path, text: str | None = None) -> Path:
    """A script as a file."""
    path = folder / "demo.py"
    path.write_text(script() if text is None else text, encoding="utf-8")
    return path
