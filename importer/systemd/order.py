"""Order of the units among each other: `depends`, `after`, `conflicts`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from importer.systemd.conversion import Conversion, Shape
from importer.systemd.unit_file import Entry
from importer.systemd.units import Unit

# reached before spawnd starts
REACHED = frozenset(
    "sysinit.target basic.target local-fs.target local-fs-pre.target remote-fs.target network.target "
    "network-pre.target nss-lookup.target nss-user-lookup.target paths.target sockets.target timers.target "
    "slices.target swap.target time-set.target syslog.target syslog.socket dbus.socket dbus.service "
    "cryptsetup.target rpcbind.target systemd-journald.socket systemd-journald.service systemd-journald-dev-log.socket "
    "systemd-modules-load.service systemd-sysctl.service systemd-sysusers.service systemd-tmpfiles-setup.service "
    "systemd-tmpfiles-setup-dev.service systemd-udevd.service systemd-udev-trigger.service "
    "systemd-remount-fs.service systemd-random-seed.service system.slice -.mount -.slice".split()
)
# units that are behind spawnd, or end with it
LATER = frozenset(
    "multi-user.target graphical.target default.target getty.target rescue.target shutdown.target umount.target "
    "final.target reboot.target poweroff.target halt.target emergency.target sleep.target".split()
)
AT_BOOT = frozenset("multi-user.target default.target graphical.target basic.target sysinit.target".split())
REQUIRES = ("Requires", "Requisite", "BindsTo", "PartOf")  # the last one gives way to all others
WANTS = ("Wants", "Upholds")
TEXTS = {
    "BindsTo": "one that is lost stops nothing",
    "PartOf": "a restart of it restarts nothing",
    "Requisite": "it is started, too",
    "Upholds": "it orders alone",
    "Wants": "it orders alone",
}
ELSEWHERE = "a drop-in of spawnd.service can name it, for all services"
ELSEWHERE_TEXTS = {
    "Before": "spawnd starts after it, or it needs After=spawnd.service itself",
    "Conflicts": "nothing stops a unit of systemd",
    "PartOf": "no unit of systemd stops a service",
}


class Order:
    """Edges between definitions. `names` are those of the units that are converted.

    An edge that would close a cycle is left out; what is required comes before what is only ordered.
    """

    def __init__(self, units: Mapping[str, Unit], names: Mapping[str, str]) -> None:
        self.names = names
        self._edges: dict[str, set[str]] = {}
        self._before: dict[str, list[str]] = {}
        self._required_by: dict[str, list[str]] = {}
        ours = [(names[unit.name], unit) for unit in units.values() if unit.name in names]
        for name, unit in ours:
            later = self.resolve(unit.names("Unit", "Before"))
            groups = WANTS if unit.kind == ".target" else ()
            for other in self.resolve(unit.names("Unit", *REQUIRES[:-1], *groups)):
                if other not in later:
                    self._connect(name, other)
            for other in self.wanting(unit):
                if self._connect(other, name):
                    self._required_by.setdefault(other, []).append(name)
        for name, unit in ours:
            for other in self.resolve(unit.names("Unit", "Before")):
                if self._connect(other, name):
                    self._before.setdefault(other, []).append(name)
            for other in self.resolve(unit.names("Unit", "After", *WANTS, "PartOf")):
                self._connect(name, other)

    def wanting(self, unit: Unit) -> list[str]:
        """Return the definitions that require a unit because it says so: services, and groups that want it."""
        targets = [name for name in unit.names("Install", "WantedBy") if name.endswith(".target")]
        return self.resolve([*unit.names("Install", "RequiredBy"), *targets])

    def resolve(self, units: Iterable[str]) -> list[str]:
        return [self.names[unit] for unit in units if unit in self.names]

    def has(self, name: str, other: str) -> bool:
        """Whether `name` can come after `other`."""
        return other in self._edges.get(name, ())

    def _connect(self, name: str, other: str) -> bool:
        if name == other or self._reaches(other, name):
            return False
        self._edges.setdefault(name, set()).add(other)
        return True

    def _reaches(self, name: str, wanted: str) -> bool:
        waiting, seen = [name], {name}
        while waiting:
            for other in self._edges.get(waiting.pop(), ()):
                if other == wanted:
                    return True
                if other not in seen:
                    seen.add(other)
                    waiting.append(other)
        return False

    def convert(self, conversion: Conversion, entries: Sequence[Entry]) -> None:
        """Convert directives of one key."""
        for entry in entries:
            self._convert(conversion, entry)

    def _convert(self, conversion: Conversion, entry: Entry) -> None:
        name = conversion.definition.name
        remarks, missing = [], []
        for unit in conversion.unit.expand(entry.value).split():
            other = self.names.get(unit)
            if other == name:
                continue
            if other is not None:
                remarks.append(self._relate(conversion, entry.key, other))
            elif not self._is_met(entry.key, unit):
                missing.append(unit)
        remarks = list(dict.fromkeys(filter(None, remarks)))
        if missing:
            text = ELSEWHERE_TEXTS.get(entry.key, ELSEWHERE)
            remarks.append(f"{' '.join(missing)}: {text}" if len(entry.value.split()) > 1 else text)
            conversion.left_out([entry], "; ".join(remarks))
        elif remarks:
            conversion.approximate([entry], "; ".join(remarks))
        else:
            conversion.carried([entry])

    def _is_met(self, key: str, unit: str) -> bool:
        """Whether a relation to a unit that stays under systemd holds by itself."""
        if key in ("Conflicts", "Before"):
            return unit in LATER or (key == "Before" and unit.endswith(".target") and unit not in REACHED)
        return unit in REACHED

    def _relate(self, conversion: Conversion, key: str, other: str) -> str:
        """Add an edge to the definition, and return how it differs from the directive."""
        name = conversion.definition.name
        if key == "Conflicts":
            conversion.add("conflicts", [other])
            return ""
        if key == "Before":
            return "" if self.has(other, name) else f"{other} comes after it already"
        if not self.has(name, other):
            return f"without {other}, which would be a cycle"
        requires = conversion.definition.keys.get("depends")
        if key in WANTS and conversion.shape is Shape.GROUP:
            conversion.add("depends", [other])
            return "the group waits for it"
        if key in REQUIRES:
            conversion.add("depends", [other])
        elif not (isinstance(requires, list) and other in requires) and not self._is_required(conversion, other):
            conversion.add("after", [other])
        after = self.resolve(conversion.unit.names("Unit", "After"))
        return TEXTS.get(key, "") if key != "Wants" or other not in after else ""

    def _is_required(self, conversion: Conversion, other: str) -> bool:
        return other in self.resolve(conversion.unit.names("Unit", *REQUIRES))

    def finish(self, conversion: Conversion) -> None:
        """Add what other units say about this one."""
        definition = conversion.definition
        if required := self._required_by.get(definition.name):
            conversion.add("depends", required)
        depends = definition.keys.get("depends")
        known = depends if isinstance(depends, list) else []
        after = definition.keys.get("after")
        if isinstance(after, list) and (doubled := [name for name in after if name in known]):
            rest = [name for name in after if name not in doubled]
            definition.set("after", rest)
            if not rest:
                definition.remove("after")
        if before := [name for name in self._before.get(definition.name, ()) if name not in known]:
            conversion.add("after", before)
