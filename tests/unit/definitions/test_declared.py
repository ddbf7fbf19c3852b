"""Each key is declared once, at a field of `Service`: nothing that a key needs is forgotten."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from supervisor.definitions import services
from supervisor.definitions.notation import keys as notation
from supervisor.definitions.report import SharedValues, saved_fields, service_record
from supervisor.definitions.service import (
    CHANGES,
    FUNCTIONS,
    KEY_OF_FIELD,
    KEYS,
    Accept,
    Backoff,
    Change,
    Descriptor,
    Reset,
    Service,
    Settings,
)  # fmt: skip

PLACE = {"name", "file", "line", "lines"}  # which service it is, and where it stands
DICTS_OF_KEYS = {"resources"}
# Names in the state file.  A spawnd of the next version reads what this one has saved: add names, never remove one.
SAVED = {
    Service: """
        name file line lines description exec worker options arg env env_file user group groups uid gid gids cwd umask
        chroot stdin stdout stderr fd limits capabilities no_new_privs nice cpu_affinity oom_score_adj resources netns
        depends after conflicts autostart demand task restart healthy_after backoff start_limit ready ready_fd
        start_timeout stop_timeout stop_signal handover_signal reload_signal restart_signal kill_mode watchdog
        fdstore_max control
        check functions functions_as_root functions_digest text function_user function_ids login_env listen_fds
        expand_env io_class io_priority scheduling timer_slack success_status no_restart_status forking pid_file
        accept idle_stop idle_cpu argv0 flush
    """,
    Descriptor: """
        kind name path access host port connect backlog mode owner group reuseport freebind transparent v6only nodelay
        passcred netns mark sndbuf rcvbuf interface defer_accept
    """,
    Backoff: "first factor max jitter",
    Accept: """
        descriptor max per_source v4 v6 on_limit session_timeout nodelay keepalive linger session_log rate burst
        source_rate only_from no_access hours load_max memory_min banner banner_refused trap deny_time defer_accept
        interface session_cgroup
    """,
    Settings: "control_group log_level cgroup places",
}


def test_every_field_belongs_to_a_key() -> None:
    """A field without one would be compared by no reload."""
    assert {field.name for field in fields(Service)} == KEY_OF_FIELD.keys() | DICTS_OF_KEYS | PLACE
    assert set(KEY_OF_FIELD.values()) <= KEYS.keys() | {FUNCTIONS}


def test_every_key_says_what_its_change_asks_for() -> None:
    assert CHANGES.keys() == KEYS.keys() | {FUNCTIONS}
    assert Change.NOTHING not in CHANGES.values()


def test_every_kind_is_converted_and_shown() -> None:
    kinds = {key.kind for key in KEYS.values()}
    assert kinds == services.CONVERTERS.keys() | services.MAKERS.keys()
    assert kinds == notation.VALUES.keys() | notation.WHOLE.keys()
    assert not services.CONVERTERS.keys() & services.MAKERS.keys()
    assert not notation.VALUES.keys() & notation.WHOLE.keys()


@pytest.mark.parametrize("kind", SAVED)
def test_what_was_saved_can_be_read(kind: type) -> None:
    listed, saved = set(SAVED[kind].split()), {name for _field, name, _default in saved_fields(kind)}
    assert listed - saved == set(), "the next version reads what this one has saved: keep the names"
    assert saved - listed == set(), f"add the new names to SAVED[{kind.__name__}]"


def test_a_field_that_has_been_renamed_keeps_its_name_in_records() -> None:
    record = service_record(Service("x", source_digest="d"))
    assert record == {"name": "x", "text": "d"}
    assert SharedValues().service(record) == Service("x", source_digest="d")


@pytest.mark.parametrize(
    ("reset", "names"),
    [
        (Reset.ALWAYS, {"listen_fds", "expand_env"}),
        (Reset.BESIDE_PROCESS, {
            "limits", "capabilities", "no_new_privs", "nice", "cpu_affinity", "oom_score_adj", "chroot", "io_class",
            "io_priority", "scheduling", "timer_slack",
        }),
        (Reset.OTHER_USER, {"groups", "gids", "login_env"}),
    ],
)  # fmt: skip
def test_functions_run_without_some_keys(reset: Reset, names: set[str]) -> None:
    declared = {item.name for item in fields(Service) if "key" in item.metadata and item.metadata["key"].reset is reset}
    assert declared == names, f"add the key to the names of {reset.name}, and a value other than its default below"
    default = Service("x")
    service = replace(
        default, listen_fds=False, expand_env=True, limits={"core": (0, 0)}, capabilities=(), no_new_privs=True, nice=1,
        cpu_affinity=(0,), oom_score_adj=5, chroot="/x", io_class="idle", io_priority=3, scheduling="idle",
        timer_slack=1.0, groups=("x",), gids=(1,), login_env={"HOME": "/"}, cwd="/x", env={"A": "b"},
    )  # fmt: skip
    found = service.without(reset)
    changed = {item.name for item in fields(Service) if getattr(found, item.name) != getattr(service, item.name)}
    assert changed == names
    assert all(getattr(found, name) == getattr(default, name) for name in names)
