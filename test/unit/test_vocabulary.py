"""Queries in the classes of a detector with a fixed list of them: never a guess."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activeo3_ros.codecs.result_cdr import result_message
from activeo3_ros.codecs.result_json import to_json
from activeo3_ros.core import InvalidInput, Query, Result, Status, UnsupportedQuery
from activeo3_ros.detectors.centernet import COCO_CLASSES
from activeo3_ros.detectors.vocabulary import load_vocabulary

vocabulary = load_vocabulary(COCO_CLASSES)


@pytest.mark.parametrize(
    ("text", "classes", "reading"),
    [
        ("the number on the police car", ("car",), "number"),
        ("Read the numbers on the buses!", ("bus",), "number"),
        ("all pedestrians", ("person",), ""),
        ("find traffic lights and stop signs", ("traffic light", "stop sign"), ""),
        ("vehicles", ("car", "motorcycle", "bus", "truck", "bicycle"), ""),
        ("Where is the motorbike?", ("motorcycle",), ""),
    ],
)
def test_a_phrase_is_mapped_to_classes(text, classes, reading):
    target = vocabulary.resolve(Query(text))
    assert (target.classes, target.reading, target.free_text) == (classes, reading, False)


@pytest.mark.parametrize("text", ["what does the sign say", "read the text", "the number on the licence plate"])
def test_text_itself_can_be_asked_for(text):
    target = vocabulary.resolve(Query(text))
    assert target.free_text
    assert target.reading


def test_a_class_narrower_than_the_detector_s_is_pointed_out():
    target = vocabulary.resolve(Query("the police car"))
    assert target.phrase == "police car"
    assert target.narrower
    assert target.notes == ("'police car' is looked for as 'car': this detector cannot tell them apart",)


@pytest.mark.parametrize(
    "text", ["the red car", "mug", "a car behind the tree", "the leftmost person", "что это", "??"]
)
def test_a_query_that_cannot_be_served_is_refused_with_a_list_of_those_that_can(text):
    with pytest.raises(UnsupportedQuery, match="this preset detects person, bicycle, car"):
        vocabulary.resolve(Query(text))


@pytest.mark.parametrize(
    "text",
    [
        "the person on the bicycle",
        "a car with people",
        "persons at the bus",
        "dogs in the car",
        "the car from the truck",
        "cars near the bus",
        "cars near me",
        "the car with the license plate",
        "the number on the car beside the bus",
    ],
)
def test_a_relation_of_objects_is_refused_as_an_attribute_is(text):
    with pytest.raises(UnsupportedQuery, match="cannot judge"):
        vocabulary.resolve(Query(text))


def test_what_is_read_is_not_reported_as_the_narrower_class():
    assert vocabulary.resolve(Query("the number on the taxi")).phrase_of("car") == "car"
    assert vocabulary.resolve(Query("the taxi")).phrase_of("car") == "taxi"
    assert vocabulary.resolve(Query("read the number", ("bus",))).phrase_of("bus") == "bus"
    assert vocabulary.resolve(Query(classes=("bus",))).phrase_of("bus") == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("the number on the taxi", ("'taxi' is looked for as 'car'", "text in front of a car cannot be told from")),
        ("read the license plate of the bus", ("text in front of a bus cannot be told from text on it",)),
        ("what does the sign say", ()),
        ("the taxi", ("'taxi' is looked for as 'car'",)),
    ],
)
def test_what_cannot_be_judged_is_named_in_message_and_json(text, told):
    notes = vocabulary.resolve(Query(text)).notes
    result = Result(64, 48, Query(text), Status.COMPLETE).with_notes(notes)
    for words in told:
        assert any(words in note for note in to_json(result, "a.jpg")["notes"])
        assert words in result_message(result, "front", 0, "optical").status_message
    assert ("in front of" in result.status_message) == any("in front" in words for words in told)


def test_objects_named_one_after_the_other_are_no_relation():
    target = vocabulary.resolve(Query("the cars on the road and people in the street"))
    assert target.classes == ("car", "person")


@pytest.mark.parametrize("text", ["3 cars", "three cars", "how many cars", "count the buses", "bus 42", "the 2 buses"])
def test_nothing_is_counted(text):
    with pytest.raises(UnsupportedQuery, match="does not count, and finds nothing by its number") as refused:
        vocabulary.resolve(Query(text))
    assert "did you mean" not in str(refused.value)


def test_a_number_of_objects_is_not_read_from_them():
    with pytest.raises(UnsupportedQuery, match="does not count"):
        vocabulary.resolve(Query("the number of cars"))
    assert vocabulary.resolve(Query("the number of the car")).reading == "number"


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("read the license plate", ("car", "motorcycle", "bus", "truck")),
        ("read the number plates of the buses", ("bus",)),
        ("the taxi's plate", ("car",)),
        ("the sign on the truck", ("truck",)),
        ("what does the sign say", ()),
    ],
)
def test_a_carrier_of_text_is_no_name_of_a_finding(text, hosts):
    target = vocabulary.resolve(Query(text))
    assert (target.classes, target.hosts, target.free_text, target.phrase) == ((), hosts, True, "")
    assert "is no class of this detector" in target.notes[-1 - bool(hosts)]


@pytest.mark.parametrize(
    ("text", "meant"), [("pedestrain", "pedestrian"), ("all vehicels", "vehicle"), ("trafic light", "traffic light")]
)
def test_a_misspelt_name_is_answered_with_the_right_one_alone(text, meant):
    with pytest.raises(UnsupportedQuery, match=f"did you mean '{meant}'") as refused:
        vocabulary.resolve(Query(text))
    assert "toothbrush" not in str(refused.value)
    with pytest.raises(UnsupportedQuery, match=f"did you mean '{meant}'"):
        vocabulary.resolve(Query(classes=(text.removeprefix("all "),)))


def test_classes_may_be_synonyms_and_groups():
    assert vocabulary.resolve(Query(classes=("Pedestrian", "lorry", "lorry"))).classes == ("person", "truck")
    with pytest.raises(UnsupportedQuery, match="unknown class 'unicorn'"):
        vocabulary.resolve(Query(classes=("car", "unicorn")))


def test_an_empty_query_asks_for_everything():
    assert vocabulary.resolve(Query()).classes == COCO_CLASSES


def test_classes_name_objects_to_detect_beside_a_phrase_that_asks_to_read():
    target = vocabulary.resolve(Query("read the number", ("bus",)))
    assert (target.classes, target.reading) == (("bus",), "number")


def test_entries_for_classes_that_the_detector_lacks_are_left_out():
    own = load_vocabulary(("car", "Stop_Sign"))
    assert own.resolve(Query("vehicles")).classes == ("car",)
    assert own.resolve(Query("taxi")).classes == ("car",)
    assert own.resolve(Query("a stop sign")).classes == ("Stop_Sign",)
    assert own.resolve(Query(classes=("Stop_Sign",))).classes == ("Stop_Sign",)
    with pytest.raises(UnsupportedQuery, match="'lorry' is unknown"):
        own.resolve(Query("lorry"))


def test_a_detector_s_own_names_come_before_the_table():
    plates = load_vocabulary(("License_Plate", "Car", "taxi", "traffic sign"))
    assert plates.resolve(Query("license plates")).classes == ("License_Plate",)
    assert plates.resolve(Query("read the license plate")).reading == "text"
    target = plates.resolve(Query("cars and taxis"))
    assert (target.classes, target.narrower, target.notes) == (("Car", "taxi"), False, ())
    assert plates.resolve(Query("traffic sign")).classes == ("traffic sign",)


def test_a_group_of_which_the_detector_has_a_part_says_what_is_left_out():
    for query in (Query("vehicles"), Query(classes=("vehicle",))):
        target = load_vocabulary(("car", "gizmo")).resolve(query)
        assert target.classes == ("car",)
        assert "is looked for without motorcycle, bus, truck, bicycle: no class of this detector" in target.notes[0]


def test_a_vocabulary_file_that_is_missing_or_holds_something_else_is_refused(tmp_path):
    (tmp_path / "words.yaml").write_text("- car", encoding="utf-8")
    for path in (tmp_path / "words.yaml", tmp_path / "none.yaml"):
        with pytest.raises(InvalidInput, match=path.name):
            load_vocabulary(("car",), str(path))


def test_every_word_of_the_shipped_table_is_text():
    """YAML reads a bare `on` or `no` as a truth value."""
    import yaml

    from activeo3_ros.assets.resources import config_directory

    table = yaml.safe_load((config_directory() / "vocabulary" / "coco.yaml").read_text())
    for key in ("narrower", "text_carriers", "read_text", "read_number", "fillers", "relations", "places"):
        assert all(isinstance(word, str) for word in table[key]), key


@given(st.text(max_size=80))
def test_any_text_is_served_or_refused(text):
    try:
        target = vocabulary.resolve(Query(text))
    except UnsupportedQuery:
        return
    assert target.classes or target.free_text
