"""A notice for each user that several services run as, where one of them has a secret."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.unit.definitions.loading import Files, load_paths

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: files that others cannot read")

REMEDY = "give a service with a secret a user of its own"


@pytest.fixture
def shared(tmp_path: Path) -> Files:
    """Definition files that everybody can read, beside `secret`, which only root can."""
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    (tmp_path / "secret").touch(0o600)
    (tmp_path / "c.env").touch(0o600)
    (tmp_path / "public").touch(0o644)
    return Files(tmp_path)


def notices(files: Files, *services: str, root: bool = True) -> list[str]:
    split = (service.partition(" ") for service in services)
    path = files.write("\n".join(f'{name} = {{ exec = "/bin/x", {keys} }}' for name, _, keys in split))
    path.chmod(0o644)
    found = load_paths(path, root=root).notices
    return [line.replace(f"{files.folder}/", "") for line in found]


def test_a_line_for_a_user(shared: Files) -> None:
    file = f'fd = {{ file("{shared.folder}/secret") }}'
    assert notices(shared, f"a {file}", "b", f'c env_file = "-{shared.folder}/c.env"') == [
        "a.lua:1: a: a, b and c run as user 'nobody': each of them can take the secrets of the others: "
        f"file 'secret' of 'a' and env_file 'c.env' of 'c'; {REMEDY}"
    ]


def test_each_user_has_a_line_of_its_own(shared: Files) -> None:
    file = f'fd = {{ file("{shared.folder}/secret") }}'
    of_daemon = 'user = "daemon", group = "daemon"'
    found = notices(shared, f"a {file}", "b", f"c {of_daemon}, {file}", f"d {of_daemon}")
    assert [line.partition(";")[0].partition("run as user ")[2][:8] for line in found] == ["'nobody'", "'daemon'"]


@pytest.mark.parametrize(
    "services",
    [
        ("a fd = {{ file('@/secret') }}",),
        ("a fd = {{ file('@/secret') }}", "b user = 'daemon', group = 'daemon'"),
        ("a fd = {{ file('@/secret') }}", "b group = 'daemon'"),
        ("a fd = {{ file('@/secret') }}, user = 'root'", "b user = 'root'"),
        ("a fd = {{ file('@/public') }}", "b"),
        ("a fd = {{ file('@/none') }}", "b"),
        ("a env_file = '@/public'", "b"),
        ("a env_file = '@/none'", "b"),
        ("a env_file = '-@/none'", "b"),
        ("a stdout = file('@/secret', 'a')", "b"),
        ("a env = {{ LANG = 'C' }}", "b"),
    ],
)
def test_nothing_to_say(shared: Files, services: tuple[str, ...]) -> None:
    texts = (text.replace("@", str(shared.folder)).replace("{{", "{").replace("}}", "}") for text in services)
    assert notices(shared, *texts) == []


def test_an_environment_in_a_file_that_the_user_cannot_read(shared: Files) -> None:
    path = shared.write('a = { exec = "/bin/x", env = { KEY = "k" } }\nb = { exec = "/bin/x" }')
    path.chmod(0o640)
    (found,) = shared.load(path.read_text()).notices
    assert f"env of 'a'; {REMEDY}" in found


def test_a_group_that_only_one_of_them_has(shared: Files) -> None:
    os.chown(shared.folder / "secret", 0, 1)
    (shared.folder / "secret").chmod(0o640)
    file = f'fd = {{ file("{shared.folder}/secret") }}, groups = "daemon"'
    assert len(notices(shared, f"a {file}", "b")) == 1
    assert notices(shared, f"a {file}", 'b groups = { "daemon" }') == []


def test_many_are_counted(shared: Files) -> None:
    services = [f"s{number} env_file = '{shared.folder}/c.env'" for number in range(20)]
    (found,) = notices(shared, *services)
    assert "s0, s1, s2, s3, s4 and 15 others run as user 'nobody'" in found
    assert found.endswith(f"env_file 'c.env' of 's4' and 15 others; {REMEDY}")


def test_a_spawnd_that_is_not_root_has_one_user_anyway(shared: Files) -> None:
    assert notices(shared, f"a env_file = '{shared.folder}/c.env'", "b", root=False) == []


def test_the_services_that_a_notice_compares_come_with_it(shared: Files) -> None:
    text = f"""a = {{ exec = "/bin/x", env_file = "{shared.folder}/c.env" }}
    b = {{ exec = "/bin/x" }}
    c = {{ exec = "/bin/x", user = "daemon", group = "daemon", umask = "700" }}
    """
    definitions = shared.load(text)
    assert len(definitions.notices) == 2
    assert list(definitions.about.values()) == [("a", "b")]
