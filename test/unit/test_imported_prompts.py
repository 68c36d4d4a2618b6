"""The words of the released demo script: read from its syntax tree, kept in the cache, chosen by a setting."""

from __future__ import annotations

import hashlib

import pytest
import yaml
from demo_scripts import BOXES, REGIONS, SYSTEM, script, write_script
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.cli.main import main
from activeo3_ros.core.errors import InvalidInput
from activeo3_ros.vlm import imported_prompts
from activeo3_ros.vlm.imported_prompts import (
    SENSING_ROLES,
    TASK_ROLES,
    choose_words,
    import_script,
    imported_path,
    load_imported,
    save_imported,
)

FILLED_REGIONS = REGIONS.replace("{question}", "QUESTION")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ACTIVEO3_CACHE", str(tmp_path / "cache"))


def requests(path):
    """For each role, the system's message and the texts before and after the picture, filled in."""
    found = import_script(path)
    filled = {}
    for role, prompt in found.prompts.items():
        made = prompt.template(role, path).fill("full", question="QUESTION", target="TARGET", max_regions=3)
        filled[role] = made.system, made.before, made.after
    return filled


def test_the_requests_are_found_with_their_system_message_and_their_order(tmp_path):
    assert requests(write_script(tmp_path)) == {
        "sensing_question": (SYSTEM, FILLED_REGIONS, ""),
        "task_grounding": (SYSTEM, "", BOXES.replace("{object}", "TARGET")),
        "task_question": (SYSTEM, "", "QUESTION"),
    }


WAYS = {
    "f-string": ("", "f" + repr(REGIONS.replace('{"', '{{"').replace('"}', '"}}'))),
    "concatenation": (
        f"BEGIN = {REGIONS.split('{question}')[0]!r}\nEND = {REGIONS.split('{question}')[1]!r}",
        "BEGIN + question + END",
    ),
    "implicit join": (f"TEMPLATE = ({REGIONS[:20]!r}\n    {REGIONS[20:]!r})", 'TEMPLATE.replace("{question}", prompt)'),
    "format": (
        f"TEMPLATE = {REGIONS.replace('{', '{{').replace('}', '}}').replace('{{question}}', '{question}')!r}",
        "TEMPLATE.format(question=prompt)",
    ),
    "format by place": (
        f"TEMPLATE = {REGIONS.replace('{', '{{').replace('}', '}}').replace('{{question}}', '{}')!r}",
        "TEMPLATE.format(row['question'])",
    ),
    "format of a row": (
        f"TEMPLATE = {REGIONS.replace('{', '{{').replace('}', '}}').replace('{{question}}', '{question}')!r}",
        "TEMPLATE.format(**row)",
    ),
    "percent": (f"TEMPLATE = {REGIONS.replace('{question}', '%s')!r}", "TEMPLATE % question"),
    "triple quotes": (
        f"TEMPLATE = '''\n{REGIONS.replace(chr(39), chr(92) + chr(39))}\n'''",
        'TEMPLATE.strip().replace("{question}", prompt)',
    ),
    "dictionary": (f"ALL = {{'vstar': {REGIONS!r}}}", 'ALL["vstar"].replace("{question}", prompt)'),
    "another name": (f"FIRST = {REGIONS!r}\nTEMPLATE: str = FIRST", 'TEMPLATE.replace("{question}", prompt)'),
    "function": (f"TEMPLATE = {REGIONS!r}", '(TEMPLATE if row else TEMPLATE).replace("{question}", str(prompt))'),
    "join": (
        f"TEMPLATE = ' '.join([{REGIONS.split(' ', 1)[0]!r}, {REGIONS.split(' ', 1)[1]!r}])",
        'TEMPLATE.replace("{question}", prompt)',
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_text_is_followed_however_it_is_put_together(tmp_path, way):
    assignments, filled = WAYS[way]
    found = requests(write_script(tmp_path, script(assignments, filled)))
    assert found["sensing_question"] == (SYSTEM, FILLED_REGIONS, "")


def test_nothing_of_the_script_runs(tmp_path):
    trap = tmp_path / "ran"
    text = script().replace("import json", f"open({str(trap)!r}, 'w').close()\nimport json")
    text = text.replace("f'Box", """f'{__import__("os").mkdir("x") or object}' if False else f'Box""")
    with pytest.raises(InvalidInput, match=r"line \d+: .*cannot be told without running the script"):
        import_script(write_script(tmp_path, text))
    assert not trap.exists()


TEMPLATE = f"TEMPLATE = {REGIONS!r}"
REFUSED = {
    "a file that is read": (script('TEMPLATE = open("words.txt").read()'), "open('words.txt').read() cannot be told"),
    "a name that is nowhere": (script(""), "TEMPLATE is set nowhere in this script; is it cut?"),
    "several steps": (script(f"{TEMPLATE}\nTEMPLATE += ' Be quick.'"), "TEMPLATE is made in several steps"),
    "itself": (script("TEMPLATE = TEMPLATE + ' '"), "a text that is made from itself"),
    "a format": (script(boxes="f'Box each {object:>10}.'"), "{object:>10} cannot be told"),
    "no placeholder": (script("TEMPLATE = 'List places in <answer></answer>'"), "has no placeholder for a question"),
    "no placeholder for an object": (script(boxes="'Box all cats.'"), "'Box all cats.' has no placeholder"),
    "a wrong template": (script("TEMPLATE = '{question'", "TEMPLATE.format(question=prompt)"), ".format refuses"),
    "two wordings": (
        script(f"{TEMPLATE}\nlook('a.jpg', TEMPLATE.replace('{{question}}', 'now ' + row['question']))"),
        "make the request sensing_question in different words",
    ),
    "cut within a line": (script()[:900], "not a whole Python script"),
    "cut between functions": (script()[: script().index("TEMPLATE =")], "is the script cut?"),
    "another program": ("print('hello')\n", "not the released demo script of ACTIVE-o3, or cut"),
    "an empty file": ("", "not the released demo script of ACTIVE-o3, or cut"),
    "deep nesting": ("x = " + "(" * 5000 + ")" * 5000, ""),
    "a long sum": ("x = " + "+".join(["1"] * 20_000), ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_told_is_refused_in_one_line_with_its_place(tmp_path, case, capsys):
    text, reason = REFUSED[case]
    path = write_script(tmp_path, text)
    assert main(["prompts", "import", str(path), "--changed"]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"activeo3: {path}: ") and complaint.count("\n") == 1
    assert reason in complaint, complaint
    assert not imported_path().exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x7fELF\x00\x01\xff" * 100, "is no text"),
        (b"text = '\xff\xfe'", "is no text"),
        (b"#" * 2_000_000, "is larger than 1000000 bytes"),
    ],
)
def test_a_file_that_is_no_script_is_refused(tmp_path, content, reason, capsys):
    path = tmp_path / "demo.py"
    path.write_bytes(content)
    assert main(["prompts", "import", str(path)]) == 2
    assert reason in capsys.readouterr().err
    assert main(["prompts", "import", str(tmp_path / "absent.py")]) == 2
    assert "absent.py: cannot be read: No such file" in capsys.readouterr().err


@given(end=st.integers(0, len(script())), noise=st.text(max_size=5))
def test_a_script_that_is_cut_or_damaged_anywhere_is_imported_or_refused_in_one_line(tmp_path_factory, end, noise):
    path = write_script(tmp_path_factory.getbasetemp(), script()[:end] + noise)
    try:
        assert import_script(path).prompts
    except InvalidInput as error:
        assert str(error).startswith(f"{path}: ")


def test_a_changed_script_is_imported_only_when_that_is_asked_for(tmp_path, capsys):
    path = write_script(tmp_path)
    assert main(["prompts", "import", str(path)]) == 2
    assert "its requests are not those of the released script" in capsys.readouterr().err
    assert load_imported() is None
    assert main(["prompts", "import", str(path), "--changed"]) == 0
    told = capsys.readouterr().out
    assert "(not as released)" in told and hashlib.sha256(path.read_bytes()).hexdigest() in told
    assert "sensing_detection: the script has none, our own stays" in told
    found = load_imported()
    assert found is not None and not found.as_released and found.script == str(path)


def test_another_path_of_the_weights_is_the_same_set_of_requests(tmp_path, monkeypatch):
    found = import_script(write_script(tmp_path))
    monkeypatch.setattr(imported_prompts, "RELEASED", found.sha256)
    moved = import_script(write_script(tmp_path, script().replace("YOUR_MODEL_PATH", "/models/policy")))
    assert moved.as_released and moved.sha256 == found.sha256 and moved.script_sha256 != found.script_sha256


def test_the_checksum_of_requests_stays_as_it_is(tmp_path):
    """Where this one changes, the checksum of the released requests (`RELEASED`) has to be made anew, too."""
    assert import_script(write_script(tmp_path)).sha256.startswith("e995b9a8ae0f4af1")


def test_another_set_is_not_replaced_without_leave(tmp_path, capsys):
    save_imported(import_script(write_script(tmp_path)))
    other = write_script(tmp_path, script(boxes="f'Find {object}.'"))
    assert main(["prompts", "import", str(other), "--changed"]) == 2
    assert "replace it with --force" in capsys.readouterr().err
    assert main(["prompts", "import", str(other), "--changed", "--force"]) == 0
    assert load_imported() == import_script(other)


def test_a_set_that_was_edited_or_damaged_is_refused(tmp_path):
    path = save_imported(import_script(write_script(tmp_path)))
    whole = path.read_text(encoding="utf-8")
    for damaged in (whole.replace("Box each", "Box every"), whole[:200], "[]", "prompts: {x: {}}", "\0"):
        path.write_text(damaged, encoding="utf-8")
        with pytest.raises(
            InvalidInput, match="damaged, or changed since it was imported; run: activeo3 prompts import"
        ):
            load_imported()
    path.write_text(yaml.safe_dump(yaml.safe_load(whole)), encoding="utf-8")
    assert load_imported() is not None


def test_show_compares_sentence_by_sentence(tmp_path, capsys):
    assert main(["prompts", "show", "task_question"]) == 0
    told = capsys.readouterr().out
    assert "nothing is imported" in told and "$question" in told
    save_imported(import_script(write_script(tmp_path)))
    assert main(["prompts", "show"]) == 0
    told = capsys.readouterr().out
    assert "-user: You direct a camera that can zoom." in told
    assert "+user: Name up to three places that tell about '$question'." in told
    assert "(no imported request)" in told


def words(setting, roles=SENSING_ROLES):
    return choose_words(setting, *roles, roles)


def test_imported_words_are_used_where_they_are_there_and_a_setting_decides(tmp_path):
    assert words("auto").used == words("own").used == "own"
    with pytest.raises(InvalidInput, match=r"words: imported, but .* is not there; run: activeo3 prompts import FILE"):
        words("imported")
    sha = import_script(write_script(tmp_path)).sha256[:12]
    save_imported(import_script(write_script(tmp_path)))
    assert words("own").used == "own"
    assert words("auto").used == f"imported {sha} (not as released) for questions, own for targets"
    assert words("imported", TASK_ROLES).used == f"imported {sha} (not as released)"
    filled = words("auto").question.fill("none", question="QUESTION", max_regions=3)
    assert filled.before == FILLED_REGIONS and filled.prefix == "<answer>\n[" and filled.stop
    assert words("imported", TASK_ROLES).question.fill(question="QUESTION").prefix == "", "a bare question asks no form"


def test_a_prompt_of_the_users_own_is_kept_or_contradicts(tmp_path):
    save_imported(import_script(write_script(tmp_path)))
    assert choose_words("auto", "sensing_detection", "sensing_detection", SENSING_ROLES).used == "own"
    with pytest.raises(InvalidInput, match="words: imported contradicts the prompt 'task_clicks'"):
        choose_words("imported", "task_clicks", "task_question", TASK_ROLES)
