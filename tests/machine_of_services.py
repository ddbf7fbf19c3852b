"""A whole machine's start-up scripts: what needs what, and what a graph of them has to look like."""

from __future__ import annotations

NEEDS: dict[str, tuple[str, ...]] = {  # in order of definition
    "microcode_ctl": (),
    "sysstat": ("microcode_ctl",),
    "cpuspeed": ("sysstat",),
    "network": ("cpuspeed",),
    "iptables": ("network",),
    "ntpd": ("iptables",),
    "atd": ("ntpd",),
    "crond": ("ntpd",),
    "xfs": ("iptables",),
    "syslog": ("iptables", "ntpd"),
    "apcupsd": ("syslog", "xfs"),
    "apmd": ("syslog",),
    "postfix": ("iptables",),
    "sshd": ("iptables",),
    "named": ("iptables",),
    "mysql": ("iptables",),
    "httpd": ("named", "mysql"),
    "iiim": ("cpuspeed",),
    "acpid": ("cpuspeed",),
    "smartd": ("cpuspeed",),
    "rawdevices": ("cpuspeed",),
    "irqbalance": ("cpuspeed",),
}

TREE = """\
microcode_ctl
  sysstat
    cpuspeed
      network
        iptables
          ntpd
            atd
            crond
            syslog
              apcupsd
              apmd
          xfs
            apcupsd
          syslog
            apcupsd
            apmd
          postfix
          sshd
          named
            httpd
          mysql
            httpd
      iiim
      acpid
      smartd
      rawdevices
      irqbalance
"""

ORDER = """\
microcode_ctl
sysstat
cpuspeed
network iiim acpid smartd rawdevices irqbalance
iptables
ntpd xfs postfix sshd named mysql
atd crond syslog httpd
apcupsd apmd
"""


def modules(body: str = "function start() return true end\nfunction stop() end\n") -> str:
    """The definitions, one module after the other, each with `body`."""
    texts = []
    for name, needs in NEEDS.items():
        depends = "".join(f', "{other}"' for other in needs)
        texts.append(f'module("{name}", package.seeall)\ndepends(_M{depends})\n{body}')
    return "".join(texts)
