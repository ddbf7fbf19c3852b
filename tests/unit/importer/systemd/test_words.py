"""Words, commands, specifiers and values of unit files."""

from __future__ import annotations

import pytest

from importer.result import SourceError
from importer.systemd import specifiers, values
from importer.systemd.specifiers import SpecifierError
from importer.systemd.unit_file import parse
from importer.systemd.units import in_force
from importer.systemd.values import ValueNotUnderstood
from importer.systemd.words import Command, WordError, commands, texts
from importer.values import value_text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", []),
        ("a  b\tc", ["a", "b", "c"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ("--x='a b'c", ["--x=a bc"]),
        ("''", [""]),
        (r"a\x20b \"q\" \\ \t\n", ["a b", '"q"', "\\", "\t\n"]),
        (r"\u00e9\U0001F600\101\s", ["\u00e9\U0001f600A "]),
        (r"C:\d+", [r"C:\d+"]),
        (r"\x00 \ud800", [r"\x00", r"\ud800"]),
    ],
)
def test_words(value: str, words: list[str]) -> None:
    assert texts(value) == words


@pytest.mark.parametrize("value", ["'a", '"', "a 'b\" c"])
def test_a_quote_has_to_be_closed(value: str) -> None:
    with pytest.raises(WordError, match="not closed"):
        texts(value)


def test_commands() -> None:
    assert commands("-/bin/a b ; @/bin/c d e \\; f ';'") == [
        Command("/bin/a", ("b",), "-"),
        Command("/bin/c", ("e", ";", "f", ";"), "@", "d"),
    ]
    assert commands("+!-/bin/a")[0].as_root
    assert commands("!/bin/a")[0].as_root
    assert not commands("!!/bin/a")[0].as_root
    assert commands("/bin/a $B")[0].expands
    assert not commands(":/bin/a $B")[0].expands


@pytest.mark.parametrize("value", ["@/bin/a", "-", "; -"])
def test_commands_that_are_none(value: str) -> None:
    with pytest.raises(WordError):
        commands(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("%n %N %p %i", "a-web@x-y.service a-web@x-y a-web x-y"),
        ("%P %I %j %J", "a/web x/y web web"),
        ("%f %t %S %C %L %E", "/x/y /run /var/lib /var/cache /var/log /etc"),
        ("%u %h %% 5%", "root /root % 5%"),
    ],
)
def test_specifiers(text: str, value: str) -> None:
    assert specifiers.expand(text, specifiers.values_of("a-web@x-y.service")) == value


def test_specifiers_of_the_host_and_without_a_value() -> None:
    known = specifiers.values_of("a.service")
    assert specifiers.expand("%H", known)
    assert specifiers.names_host("x%H")
    assert not specifiers.names_host("%%H x%n")
    with pytest.raises(SpecifierError, match="%d"):
        specifiers.expand("%d", known)
    assert specifiers.expand("%f", specifiers.values_of(r"a\x2db-c.service")) == "/a-b/c"


def test_unit_files() -> None:
    text = "# c\n[A]\nx = 1 \\\n  # c\n  2\ny=\n; c\n[B]\nz=a=b\\\n"
    assert [(entry.section, entry.key, entry.value, entry.line) for entry in parse("f", text)] == [
        ("A", "x", "1    2", 3),
        ("A", "y", "", 6),
        ("B", "z", "a=b", 9),
    ]


@pytest.mark.parametrize(("text", "line"), [("x=1\n", 1), ("[A]\n\nnonsense\n", 3), ("[A]\n=1\n", 2), ("[A\n", 1)])
def test_a_line_that_is_none(text: str, line: int) -> None:
    with pytest.raises(SourceError) as caught:
        parse("f", text)
    assert caught.value.line == line


def test_assignments_in_force() -> None:
    text = (
        "[Service]\nExecStart=/a\nNice=1\nExecStart=\nExecStart=/b\nNice=2\n"
        "[Unit]\nConditionPathExists=/x\nConditionUser=y\nConditionHost=\nAfter=a\nAfter=\nAfter=b\n"
    )
    counting, replaced = in_force(parse("f", text))
    assert [entry.line for entry in counting] == [5, 6, 11, 13]
    assert sorted(entry.line for entry in replaced) == [2, 3, 4, 8, 9, 10, 12]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("5min 2s", 302), ("50ms", 0.05), ("1h9min", 4140), ("1.5s", 1.5), ("infinity", None), ("2 w", 1209600)],
)
def test_time_spans(text: str, seconds: float | None) -> None:
    assert values.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "5 parsecs", "x", "-1", "1000y", "1 2x"])
def test_no_time_spans(text: str) -> None:
    with pytest.raises(ValueNotUnderstood):
        values.seconds(text)


def test_other_values() -> None:
    assert value_text(values.memory("1.5G")) == '"1536m"'
    assert values.memory("infinity") == "unlimited"
    assert values.signal_name("SIGRTMIN+3") == "RTMIN+3"
    assert values.signal_name("9") == "KILL"
    assert values.mode("0755") == "755"
    assert values.timeout("0") is False
    assert values.boolean("On")
    for convert, text in (
        (values.memory, "10%"), (values.size_of, "1X"), (values.signal_name, "NOPE"), (values.mode, "04755"),
        (values.boolean, "maybe"), (values.absolute, "a"),
    ):  # fmt: skip
        with pytest.raises(ValueNotUnderstood):
            convert(text)
