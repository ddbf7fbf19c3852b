"""`make install`, run in a copy of the checkout whose environment is poisoned."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FILES = ("Makefile", "setup.cfg", "setup.py", "pyproject.toml", "LICENSE", *PAGES)
FOLDERS = ("requirements", "docs", "conf", "spawn_supervisor", "supervisor", "tools", "workers", "importer", "lua")
STAMPS = ("venv", "build", "run", "test", "project")
USER = "cm4all-spawn-reaper"
PLATFORM_FILES = (
    "systemd/system/system-cm4all.slice",
    "sysusers.d/spawn-supervisor.conf",
    "tmpfiles.d/spawn-supervisor.conf",
)
# A host without systemd: /etc and /var/lib are copies, or as good as that, that nobody else sees.
BARE_HOST = f"""
set -e
mkdir own-etc own-lib own-lib/dpkg
cp -a /etc/. own-etc/
sed -i '/^{USER}:/d' own-etc/passwd own-etc/shadow own-etc/group own-etc/gshadow
mount --bind own-etc /etc
if [ -d /var/lib/dpkg ]; then mount --bind /var/lib/dpkg own-lib/dpkg; fi
mount --rbind own-lib /var/lib
if [ -d /run/systemd ]; then mount -t tmpfs none /run/systemd; fi
for tool in systemd-sysusers systemd-tmpfiles; do
    if path=$(command -v $tool); then mount --bind /dev/null "$path"; fi
done
"""


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """With an environment every program of which leaves a note and fails."""
    with tempfile.TemporaryDirectory(prefix="spawnd-install-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for item in FILES:
            shutil.copy(ROOT / item, folder / item)
        for item in FOLDERS:
            shutil.copytree(ROOT / item, folder / item, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / ".venv/bin").mkdir(parents=True)
        (folder / "build").mkdir()
        for stamp in STAMPS:
            (folder / f".venv/{stamp}.stamp").touch()
        for program in ("python", "python3", "pip", "spawnd", "spawnctl"):
            path = folder / ".venv/bin" / program
            path.write_text(f"#!/bin/sh\ntouch {folder}/was-run\nexit 1\n")
            path.chmod(0o755)
        yield folder


def make(checkout: Path, *arguments: str) -> str:
    return run(checkout, "make", *arguments)


def run(folder: Path, *command: str) -> str:
    result = subprocess.run(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=280, check=False
    )
    assert result.returncode == 0, result.stdout
    return result.stdout


@pytest.fixture(scope="module")
def installed(checkout: Path) -> Path:
    """The root of an installation without options, but for another folder of configuration."""
    make(checkout, "install", f"DESTDIR={checkout}/root", "SYSCONFDIR=/srv/etc")
    return checkout / "root"


def texts(folder: Path) -> dict[Path, str]:
    found = {}
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found[path] = path.read_bytes().decode(errors="replace")
    return found


def test_nothing_of_the_checkout_s_environment_is_run_and_nothing_is_written_there(
    installed: Path, checkout: Path
) -> None:
    assert not (checkout / "was-run").exists()
    assert list((checkout / "build").iterdir()) == []
    assert not list(checkout.glob("*.egg-info"))


def test_a_supervisor_alone_has_no_vendor_s_name_in_the_folders_of_the_host(installed: Path) -> None:
    examples = installed / "usr/local/share/spawn-supervisor/examples"
    assert [path for path in installed.rglob("*cm4all*") if examples not in path.parents] == []
    assert list((installed / "srv/etc/spawnd/services.d").iterdir()) == []
    assert {path.name for path in (examples / "services.d").iterdir()} == {"accessory.lua", "netns.lua", "reaper.lua"}
    assert not (installed / "usr/local/lib/sysusers.d").exists()


def test_programs_have_the_folder_of_configuration_that_was_asked_for(installed: Path) -> None:
    python = installed / "usr/local/lib/spawn-supervisor/bin/python"
    script = "import spawn_supervisor; from supervisor.main import parser; parser().print_help()"
    assert "(/srv/etc/spawnd/services.d)" in run(installed, str(python), "-I", "-c", script)
    assert not list((installed / "srv/etc").glob("cm4all"))


def test_links_in_documents_lead_to_what_is_there(installed: Path) -> None:
    documents = installed / "usr/local/share/doc/spawn-supervisor"
    assert "](tutorial.md)" in (documents / "index.md").read_text()
    for path in documents.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#:]+)[^):]*\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.skipif(shutil.which("pandoc") is None, reason="needs pandoc")
def test_man_pages_name_the_folders_of_the_installation(installed: Path) -> None:
    pages = installed / "usr/local/share/man"
    assert "/srv/etc/spawnd/services.d" in (pages / "man8/spawnd.8").read_text().replace("\\", "")
    assert len(list(pages.glob("man*/*"))) > 5


def test_paths_in_installed_files_are_those_of_the_installation(installed: Path, checkout: Path) -> None:
    for path, text in texts(installed).items():
        for wrong in (str(checkout), "spawn-supervisor.new", "/tmp/tmp."):
            assert wrong not in text, path
    own = [installed / "usr/local/share", installed / "usr/local/lib/systemd"]
    for path, text in (pair for folder in own for pair in texts(folder).items()):
        if path.name in ("testing.md", "CHANGELOG.md", "CONTRIBUTING.md"):
            continue
        for target in re.findall(r"/usr(?:/local)?/(?:lib|share|bin)/(?:doc/)?spawn[\w./-]*[\w]", text):
            assert os.path.lexists(f"{installed}{target}"), f"{path}: {target}"
        assert not re.search(r"(?<!/srv)/etc/(spawnd|cm4all)", text), path


# What `make install` says at its end is done, word for word, on a host of its own: its /run and its network are nobody
# else's, and its processes end with it.
CLOSING_LINES = """
start=$(sed -n 's/^To start it now, in the foreground, without systemd: //p' said)
check=$(sed -n 's/^Definitions go into .*; to check them: //p' said)
folder=$(sed -n 's/^Definitions go into \\(.*\\); to check them: .*/\\1/p' said)
go_on=$(sed -n 's/^To have one that runs go on with what was installed: //p' said)
spawnctl=${go_on% *}
mount -t tmpfs none /run
rm "$folder"/*
echo 'one = { exec = "/bin/sleep", arg = { "1000" } }' > "$folder/one.lua"
$check
$start 2> log &
pid=$!
for try in $(seq 300); do
    if $spawnctl list 2> /dev/null | grep -q running; then break; fi
    kill -0 $pid
    sleep 0.1
done
$go_on | sed "s/ $pid\\$/ of its start/"
timeout 60 $spawnctl shutdown
wait $pid
"""


@pytest.fixture(scope="module")
def bare_host(checkout: Path) -> list[str]:
    """Check a host without systemd: the installed files, then the closing lines of the installation.

    There was an environment before, of which one file is known.
    """
    options = f"PREFIX={checkout}/usr SYSCONFDIR={checkout}/etc PLATFORM=1"
    look = f"getent passwd {USER}; stat -c '%U %G %a' /var/lib/spawnd; {checkout}/usr/bin/spawnd --check"
    (checkout / "closing-lines").write_text(f"set -e\n{CLOSING_LINES}")
    closing = "unshare --mount --net --pid --fork --kill-child --mount-proc sh closing-lines"
    former = checkout / "usr/lib/spawn-supervisor/former"
    former.parent.mkdir(parents=True)
    former.touch()
    script = f"{BARE_HOST}\nmake install {options} > said 2>&1 || cat said\n{look}\n{closing}"
    return run(checkout, "unshare", "--mount", "sh", "-c", script).splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a user")
def test_a_host_without_systemd_gets_the_user_and_the_folders_of_the_platform(
    bare_host: list[str], checkout: Path
) -> None:
    passwd, folder, check = bare_host[:3]
    assert passwd.startswith(f"{USER}:x:"), bare_host
    assert passwd.endswith(":/var/lib/spawnd:/usr/sbin/nologin"), bare_host
    assert (folder, check) == (f"{USER} {USER} 750", "OK: 2 services"), bare_host
    assert (checkout / "etc/cm4all/spawn/reaper.lua").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a user")
def test_what_an_installation_says_at_its_end_is_true(bare_host: list[str], checkout: Path) -> None:
    check, go_on, *rest = bare_host[3:]
    assert check == "OK: 1 service", bare_host
    assert re.fullmatch(r"spawnd \S+ runs, pid of its start", go_on), bare_host
    assert rest == [], bare_host
    log = (checkout / "log").read_text()
    assert "one: running" in log, log


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: makes a user")
def test_the_new_environment_takes_the_place_of_the_one_before(bare_host: object, checkout: Path) -> None:
    (home,) = (checkout / "usr/lib").glob("spawn-supervisor*")  # neither a new one nor an old one beside it
    assert (home / "bin/spawnd").exists()
    assert not (home / "former").exists()


def place(checkout: Path, root: Path, platform: str = "") -> None:
    """Do all of an installation but its environment, which takes as long as all other tests here."""
    script = "set -eu; . tools/places.sh; . tools/place_files.sh; place_files"
    run(checkout, "env", f"DESTDIR={root}", f"PLATFORM={platform}", "sh", "-c", script)


@pytest.fixture(scope="module")
def platform_root(checkout: Path) -> Path:
    """The root of an installation with the platform, where the operator had made a definition before."""
    definition = checkout / "older/etc/spawnd/services.d/accessory.lua"
    definition.parent.mkdir(parents=True)
    definition.write_text("-- none\n")
    place(checkout, checkout / "older", platform="1")
    return checkout / "older"


def test_a_definition_that_an_operator_has_changed_stays(platform_root: Path) -> None:
    definition = platform_root / "etc/spawnd/services.d/accessory.lua"
    assert definition.read_text() == "-- none\n"
    assert definition.with_name("reaper.lua").exists()


def test_an_installation_without_the_platform_refreshes_one_that_is_there(checkout: Path, platform_root: Path) -> None:
    root = platform_root
    definitions = root / "etc/spawnd/services.d"
    examples = root / "usr/local/share/spawn-supervisor/examples/services.d"
    platform = [root / "usr/local/lib" / name for name in PLATFORM_FILES]
    current = [path.read_text() for path in (*platform, definitions / "reaper.lua")]
    for path in (*platform, definitions / "reaper.lua", examples / "reaper.lua"):
        path.write_text("# of an older release\n")
    (definitions / "accessory.lua").write_text("-- changed by the operator\n")
    (definitions / "netns.lua").unlink()
    place(checkout, root)
    assert [path.read_text() for path in (*platform, definitions / "reaper.lua")] == current
    assert (definitions / "accessory.lua").read_text() == "-- changed by the operator\n"
    assert not (definitions / "netns.lua").exists()


def test_the_spawners_whose_scopes_the_reaper_watches_may_ask_the_accessory(installed: Path) -> None:
    definition = installed / "usr/local/share/spawn-supervisor/examples/services.d/accessory.lua"
    allowed = set(re.findall(r'\["?([\w-]+)"?\] = "any"', definition.read_text()))
    assert allowed == {f"cm4all-{name}-spawn" for name in ("beng", "lukko", "workshop")}


def test_nothing_is_uninstalled_where_nothing_is(tmp_path: Path) -> None:
    (tmp_path / "usr/bin").mkdir(parents=True)
    mine = tmp_path / "usr/bin/spawnd"  # of another package
    mine.write_text("")
    environment = {"PATH": os.environ["PATH"], "DESTDIR": str(tmp_path), "PREFIX": "/usr"}
    command = ["/bin/sh", str(ROOT / "tools/uninstall")]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 1
    expected = f"make uninstall: nothing is installed in {tmp_path}/usr; PREFIX=DIR names another place\n"
    assert (result.stdout, result.stderr) == ("", expected)
    assert mine.exists()
