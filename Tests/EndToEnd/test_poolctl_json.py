"""docs/poolctl-json.md against the protocol, and what `poolctl --json` prints against the page."""
import json
import re

import pytest
from conftest import ROOT
from fake_control import encode
from messages import MESSAGES, PROTO
from test_poolctl_output import SHOWN, answers_of, fake, run  # noqa: F401: `fake` is a fixture

PAGE = (ROOT / "docs/poolctl-json.md").read_text()


def documented():
    """What the page says of each message: its text, and the rows of its table as key → (type, meaning)."""
    sections = {}
    for name, body in re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", PAGE, re.S | re.M):
        rows = {key: (kind, meaning.strip()) for key, kind, meaning in re.findall(r"^\| `(\w+)` \| ([^|]*) \|(.*)\|$", body, re.M)}
        sections[name] = (body, rows)
    return sections


def message_of(command):
    """The message that the page names for a command."""
    rows = re.findall(r"^\| (`.*?) \| ([A-Z]\w+)", PAGE[PAGE.index("## Messages"):PAGE.index("### ")], re.M)
    return {name: message for names, message in rows for name in re.findall(r"`([a-z -]+)`", names)}[command]


def camel(name):
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def json_kind(kind, repeated):
    """How protobuf's mapping writes a field, as the page says it."""
    wide = {"uint64": "string of digits", "int64": "string of digits", "string": "string", "bool": "boolean"}
    if kind.startswith("map"):
        value = wide.get(kind[:-1].split()[1], "number")
        return "object of " + {"string": "strings", "string of digits": "strings of digits", "number": "numbers"}[value]
    one = kind if kind in MESSAGES else wide.get(kind, "number")
    return f"array of {'strings' if one == 'string' else one}" if repeated else one


def comments():
    """What control.proto says above each message and field: (message, field or "") → one line."""
    said, message, lines = {}, None, []
    for line in map(str.strip, PROTO.read_text().splitlines()):
        opened, field = re.match(r"message (\w+) \{", line), re.match(r"(?:repeated )?(?:map<.*>|\w+) (\w+) = \d+;", line)
        if line.startswith("//"):
            lines.append(line[2:].strip())
            continue
        if opened:
            message = opened[1]
        if message and (opened or field) and lines:
            said[message, field[1] if field else ""] = " ".join(lines)
        lines = []
    return said


def check(value, message, sections, where=""):
    """Every key of a value is in the table of its own message."""
    assert set(value) <= set(sections[message][1]), (where or message, set(value) - set(sections[message][1]))
    for name, (_, kind, _) in MESSAGES[message].items():
        inner = value.get(camel(name))
        if kind in MESSAGES and inner is not None:
            for one in inner if isinstance(inner, list) else [inner]:
                check(one, kind, sections, f"{where or message}.{camel(name)}")


@pytest.mark.parametrize("command", SHOWN, ids=" ".join)
def test_json_parses_and_every_key_is_in_its_messages_table(fake, command):
    done = run(*command, "--json", *fake(**answers_of(command)))
    assert done.returncode == 0, done.stderr
    value = json.loads(done.stdout)
    assert value and done.stdout.count("\n") == 1
    check(value, message_of(" ".join(command[:2]) if command[0] == "config" else command[0]), documented())


@pytest.mark.parametrize("message", documented())
def test_the_page_says_of_a_message_what_the_protocol_says(message):
    body, rows = documented()[message]
    said = comments()
    assert list(rows) == [camel(name) for name in MESSAGES[message]]
    assert said.get((message, ""), "") in body
    for name, (_, kind, repeated) in MESSAGES[message].items():
        assert rows[camel(name)][0] == json_kind(kind, repeated), name
        assert rows[camel(name)][1] == said.get((message, name), rows[camel(name)][1]), name
        if repeated or kind in MESSAGES:
            assert kind not in MESSAGES or kind in documented(), kind


def test_every_span_has_its_unit():
    """By its name, or by what the page says of it."""
    rows = documented()["Quantiles"][1]
    assert all("Nanoseconds" in meaning for key, (_, meaning) in rows.items() if key != "count")


def test_configuration_commands_have_the_shapes_of_the_page(fake, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(f"pools:\n  one: {{module: {ROOT}/Tests/EndToEnd/workers/basic.py, python: /bin/true}}\n")
    bad.write_text("pools:\n  one: {modul: x}\n")
    row = re.search(r"^\| `config check`.*$", PAGE, re.M)[0]
    for command in (("check", bad), ("show", bad), ("diff", bad), ("diff", good, bad)):
        refused = run("config", *map(str, command), "--json")
        problems = json.loads(refused.stdout)["problems"]
        assert refused.returncode == 78 and problems and refused.stderr == ""
        assert all(f"`{key}`" in row for problem in problems for key in problem)
    assert json.loads(run("config", "check", str(good), "--json").stdout) == {"problems": []}
    shown, where = run("config", "show", str(good), "--json"), fake(configuration=encode("EffectiveConfiguration"))
    check(json.loads(shown.stdout), message_of("config show"), documented())
    check(json.loads(run("config", "diff", str(good), "--json", *where).stdout), message_of("config diff"), documented())


def test_configuration_commands_fail_with_the_same_json(fake, tmp_path):
    (tmp_path / "poold.yaml").write_text(f"pools:\n  one: {{module: {ROOT}/Tests/EndToEnd/workers/basic.py, python: /bin/true}}\n")
    for command in (("show", "--running"), ("diff", str(tmp_path / "poold.yaml"))):
        none = run("config", *command, "--json", "--control", str(tmp_path / "none"))
        assert none.returncode == 3 and none.stderr == "" and json.loads(none.stdout)["error"]["status"] == "connection"
        refused = run("config", *command, "--json", *fake(configuration=("error", 15, "you may not look")))
        assert refused.returncode == 10 and json.loads(refused.stdout)["error"]["status"] == "permission_denied"


def test_failures_that_are_no_error_object_are_listed(fake):
    """What the page excepts from `error` is printed as it says there."""
    wrong = run("status", "--jsno", "--json")
    assert wrong.returncode == 64 and wrong.stdout == ""
    refused = run("reload", "--json", *fake(reload=encode("ReloadResult", errors=["no"])))
    assert refused.returncode == 1 and json.loads(refused.stdout) == {"errors": ["no"]}
    listed = PAGE[PAGE.index("These failures have no such object"):PAGE.index("## Shapes")]
    assert all(word in listed for word in ("1 of `reload`", "1 of `doctor`", "64, wrong usage", "78 of `config`"))
