"""Units with their drop-ins, from the files and folders of the command line and those that belong to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from importer.result import Finding, Outcome, Result, SourceError
from importer.sources import listed
from importer.systemd import specifiers
from importer.systemd.unit_file import Entry, read_entries

KINDS = (".service", ".socket", ".target", ".timer")
OTHER_KINDS = (".mount", ".automount", ".swap", ".path", ".slice", ".scope", ".device")
# folders whose units belong together, the first one counts most
SYSTEM_FOLDERS = (
    "/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
    "/lib/systemd/system",
)  # fmt: skip
# later assignments of these keys add to earlier ones; of every other key the last one counts
MANY = frozenset(
    "ExecStart ExecStartPre ExecStartPost ExecStop ExecStopPost ExecReload ExecCondition ExecStopPre Environment "
    "EnvironmentFile PassEnvironment UnsetEnvironment SupplementaryGroups SuccessExitStatus RestartPreventExitStatus "
    "RestartForceExitStatus CapabilityBoundingSet AmbientCapabilities RuntimeDirectory StateDirectory CacheDirectory "
    "LogsDirectory ConfigurationDirectory CPUAffinity Sockets Documentation After Before Requires Requisite Wants "
    "BindsTo PartOf Upholds Conflicts OnFailure OnSuccess WantedBy RequiredBy UpheldBy Also Alias ListenStream "
    "ListenDatagram ListenSequentialPacket ListenFIFO ListenSpecial ListenNetlink ListenMessageQueue "
    "ListenUSBFunction IPAddressAllow IPAddressDeny Symlinks ReadWritePaths ReadOnlyPaths InaccessiblePaths "
    "ExecPaths NoExecPaths BindPaths BindReadOnlyPaths TemporaryFileSystem SystemCallFilter RestrictAddressFamilies "
    "RestrictNamespaces DeviceAllow LoadCredential SetCredential ImportCredential RequiresMountsFor "
    "OnCalendar OnBootSec OnStartupSec OnActiveSec OnUnitActiveSec OnUnitInactiveSec".split()
)
NOT_RESET = frozenset("After Before Requires Requisite Wants BindsTo PartOf Upholds Conflicts".split())
CONDITIONS = ("Condition", "Assert")


@dataclass(slots=True)
class Unit:
    """A unit with its assignments; `path` is its own file, of a template for an instance."""

    name: str
    path: str
    entries: list[Entry]
    replaced: list[Entry] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return os.path.splitext(self.name)[1]

    @property
    def base(self) -> str:
        return os.path.splitext(self.name)[0]

    @property
    def instance(self) -> str:
        return self.base.partition("@")[2]

    def all(self, section: str, key: str) -> list[Entry]:
        return [entry for entry in self.entries if (entry.section, entry.key) == (section, key)]

    def value(self, section: str, key: str, default: str = "") -> str:
        """Return the value of a key that has one."""
        found = self.all(section, key)
        return found[-1].value if found else default

    def expand(self, text: str) -> str:
        """Return a text with the values of its specifiers. Raises SpecifierError."""
        return specifiers.expand(text, specifiers.values_of(self.name))

    def names(self, section: str, *keys: str) -> list[str]:
        """Return the units that the keys name, in order; words that cannot be read are left out."""
        found = []
        for entry in self.entries:
            if entry.section == section and entry.key in keys:
                try:
                    found += self.expand(entry.value).split()
                except specifiers.SpecifierError:
                    continue
        return found


def in_force(entries: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return the assignments that count, and those that later ones have replaced, with empty ones that reset a list."""
    counting: list[Entry] = []
    replaced: list[Entry] = []

    def replace(entry: Entry, is_condition: bool) -> None:
        def is_gone(other: Entry) -> bool:
            if other.section != entry.section:
                return False
            return other.key.startswith(CONDITIONS) if is_condition else other.key == entry.key

        replaced.extend(filter(is_gone, counting))
        counting[:] = [other for other in counting if not is_gone(other)]

    for entry in entries:
        is_condition = entry.key.startswith(CONDITIONS)
        is_many = entry.key in MANY or is_condition or (entry.section == "Socket" and entry.key.startswith("Listen"))
        if not entry.value and is_many:
            if entry.key not in NOT_RESET:
                replace(entry, is_condition)
            replaced.append(entry)
        else:
            if not is_many:
                replace(entry, is_condition=False)
            counting.append(entry)
    return counting, replaced


class Loader:
    """Units by name, in the order in which they were given; broken files and other units go into `result`."""

    def __init__(self, paths: Sequence[str], result: Result) -> None:
        self.units: dict[str, Unit] = {}
        self.aliases: dict[str, str] = {}  # names of links, and the units that they lead to
        self._result = result
        self._folders = [path for path in paths if os.path.isdir(path)]
        for path in paths:
            for file in self._files(path):
                self._try_to_load(file, is_named=file == path)

    def _files(self, path: str) -> list[str]:
        """Return the units of a folder, or the path of a file."""
        try:
            return listed(path, *KINDS, *OTHER_KINDS) if os.path.isdir(path) else [path]
        except SourceError as error:
            self._result.errors.append(error)
            return []

    def _try_to_load(self, path: str, *, is_named: bool) -> None:
        try:
            self._load(path, is_named=is_named)
        except SourceError as error:
            self._result.errors.append(error)

    def beside(self, unit: Unit, name: str) -> Unit | None:
        """Return another unit, which is loaded from the folder of this one if it is there."""
        if self.get(name) is None:
            for folder in self._search(os.path.dirname(unit.path)):
                path = os.path.join(folder, name)
                template = os.path.join(folder, _template_of(name))
                if os.path.lexists(path) or ("@" in name and os.path.lexists(template)):
                    self._try_to_load(path, is_named=True)
                    break
        return self.get(name)

    def get(self, name: str) -> Unit | None:
        """Return a unit by its name or that of a link to it."""
        return self.units.get(self.aliases.get(name, name))

    def _load(self, path: str, *, is_named: bool) -> None:
        """Load a unit; `is_named`: not just a file of a folder. Raises SourceError."""
        name = os.path.basename(path)
        base, kind = os.path.splitext(name)
        if kind in OTHER_KINDS:
            self._leave_out(path, f"only {', '.join(KINDS)} units have an equivalent")
            return
        if kind not in KINDS or not base:
            raise SourceError(path, 1, f"cannot convert: the name of a unit ends in {', '.join(KINDS)}")
        if name in self.units or name in self.aliases:
            return
        if _is_masked(path):
            self._leave_out(path, "it is masked")
            return
        real = os.path.realpath(path)
        if os.path.basename(real) not in (name, _template_of(name)) and real.endswith(kind) and "@." not in real:
            self.aliases[name] = os.path.basename(real)
            self._load(real, is_named=is_named)
            return
        file = path if os.path.lexists(path) else os.path.join(os.path.dirname(path), _template_of(name))
        entries = read_entries(file if os.path.lexists(file) else path)
        if base.endswith("@"):
            self._load_template(path, base, kind, entries, is_named=is_named)
            return
        for drop_in in self._drop_ins(name, os.path.dirname(path)):
            entries += read_entries(drop_in)
        counting, replaced = in_force(entries)
        self.units[name] = Unit(name, file, counting, replaced)

    def _load_template(self, path: str, base: str, kind: str, entries: list[Entry], *, is_named: bool) -> None:
        """Load the default instance of a template, if it has one; those of sockets with Accept=yes need none."""
        default = [entry.value for entry in entries if (entry.section, entry.key) == ("Install", "DefaultInstance")]
        if default and default[-1]:
            self._load(os.path.join(os.path.dirname(path), f"{base}{default[-1]}{kind}"), is_named=True)
        elif os.path.lexists(path.removesuffix(f"@{kind}") + ".socket"):
            self._load(path.removesuffix(f"@{kind}") + ".socket", is_named=True)
        elif is_named:
            raise SourceError(path, 1, f"cannot convert a template: name its instances, like {base}NAME{kind}")
        else:
            self._leave_out(path, f"a template: name its instances, like {base}NAME{kind}")

    def _leave_out(self, path: str, why: str) -> None:
        self._result.findings.append(Finding(path, 1, os.path.basename(path), Outcome.LEFT_OUT, why))

    def connection_template(self, socket: Unit) -> Unit | None:
        """Return the service of a socket with Accept=yes: a template without a name for its instance.

        Raises SourceError.
        """
        name = f"{socket.base.partition('@')[0]}@.service"
        for folder in self._search(os.path.dirname(socket.path)):
            path = os.path.join(folder, name)
            if os.path.lexists(path):
                entries = read_entries(path)
                for drop_in in self._drop_ins(name, folder):
                    entries += read_entries(drop_in)
                return Unit(name, path, *in_force(entries))
        return None

    def _search(self, folder: str) -> list[str]:
        """Return the folders in which units and drop-ins beside those of `folder` are."""
        system = SYSTEM_FOLDERS if os.path.abspath(folder or ".") in SYSTEM_FOLDERS else ()
        return list(dict.fromkeys([folder, *self._folders, *system]))

    def _drop_ins(self, name: str, folder: str) -> list[str]:
        """Return the drop-ins of a unit in the order of their names; of two with one name, the first folder's."""
        found: dict[str, str] = {}
        for place in self._search(folder):
            for drop_in_folder in _drop_in_folders(name):
                path = os.path.join(place, drop_in_folder)
                if os.path.isdir(path):
                    for file in listed(path, ".conf"):
                        found.setdefault(os.path.basename(file), file)
        return [found[base] for base in sorted(found) if not _is_masked(found[base])]


def _template_of(name: str) -> str:
    base, kind = os.path.splitext(name)
    return f"{base.partition('@')[0]}@{kind}"


def _drop_in_folders(name: str) -> list[str]:
    """Return the names of folders with drop-ins, the most specific first: `a-b@c.service.d`, `a-b@.service.d`, …"""
    base, kind = os.path.splitext(name)
    prefix = base.partition("@")[0]
    names = [name, *([_template_of(name)] if "@" in base else [])]
    pieces = prefix.split("-")
    names += [f"{'-'.join(pieces[:length])}-{kind}" for length in range(len(pieces) - 1, 0, -1)]
    return [f"{each}.d" for each in dict.fromkeys([*names, kind[1:]])]


def _is_masked(path: str) -> bool:
    return os.path.realpath(path) == os.devnull or (os.path.isfile(path) and os.path.getsize(path) == 0)
