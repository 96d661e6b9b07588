"""The schema is comma's on the wire: every id, ordinal, type, offset, default and union tag."""

import json
from pathlib import Path

import pytest

from messaging import schema
from messaging.aliases import EVENT_ALIASES, STRUCT_ALIASES
from messaging.tests import facts

HERE = Path(__file__).resolve().parent
PUBLISHED = HERE.parents[1].parent / "shared" / "facts" / "log_schema.json"


def expected() -> list[str]:
    return (HERE / "schema_facts.txt").read_text().splitlines()


def published() -> dict:
    if not PUBLISHED.exists():
        pytest.skip(f"{PUBLISHED} is not here")
    return json.loads(PUBLISHED.read_text())


def test_loaded_schema_equals_the_facts() -> None:
    assert facts.of_schema(schema.Event.schema) == expected()


def test_facts_are_the_published_ones() -> None:
    assert facts.of_json(published()) == expected()


def test_facts_are_complete() -> None:
    kinds = [line.split()[0] for line in expected() if not line.startswith(" ")]
    assert kinds.count("struct") + kinds.count("group") == 261
    assert kinds.count("enum") == 68
    assert sum(line.split()[-2] == "tag" for line in expected()) == 186


def test_file_id() -> None:
    assert f"@{0xF3B1F17E25A4285B:#x};" in (schema.DIRECTORY / "log.capnp").read_text()


@pytest.mark.parametrize("name", ["log", "car", "deprecated", "custom"])
def test_types_are_in_the_file_the_facts_say(name: str) -> None:
    document = published()
    module = getattr(schema, name)
    for kind in ("structs", "enums"):
        for type_name, entry in document[kind].items():
            top = "." not in type_name
            if top:
                assert hasattr(module, type_name) == (entry["file"] == f"{name}.capnp"), type_name


def test_tags_follow_the_ordinals() -> None:
    # logMonoTime (@0) and valid (@67) stand outside the union
    for name, tag in schema.TAG_BY_MEMBER.items():
        ordinal = schema.Event.schema.fields[name].proto.ordinal.explicit
        assert tag == ordinal - 1 - (ordinal > 67)


def test_aliases_lead_to_names_that_exist() -> None:
    names = {line.split()[1] for line in expected() if line.startswith(("struct", "enum"))}
    for old, new in EVENT_ALIASES.items():
        assert new in schema.TAG_BY_MEMBER
        assert old not in schema.TAG_BY_MEMBER
    for old, new in STRUCT_ALIASES.items():
        assert new in names
        assert old not in names


def test_every_earlier_name_is_an_alias() -> None:
    structs = published()["structs"]
    known = {*EVENT_ALIASES, *schema.TAG_BY_MEMBER}
    for field in structs["Event"]["fields"]:
        for old in field.get("otherVersions", {}).values():
            assert old is None or old in known
    for struct in structs.values():
        for old in struct.get("olderNames", {}).values():
            assert old in STRUCT_ALIASES or old in structs


def test_maps_have_typed_keys_and_values() -> None:
    event = schema.Event.new_message()
    entry = event.init("initData").params.init("entries", 1)[0]
    entry.key, entry.value = "DongleId", b"\x00\xff"
    read = event.as_reader().initData.params.entries[0]
    assert (read.key, read.value) == ("DongleId", b"\x00\xff")
