from __future__ import annotations

from workers.reaper.cgroup_calls import HERE
from workers.reaper.node import Folders, Kind, Scopes, WatchedCgroup

A, B, INNER = "/x.slice/a.scope", "/x.slice/y.slice/b.scope", "/x.slice/a.scope/one/inner.scope"


def test_what_a_cgroup_is() -> None:
    scopes = Scopes([A, B, INNER, A])
    assert scopes.paths == (A, B, INNER)
    root = WatchedCgroup(None, "", "", Kind.ANCESTOR, 1)
    assert set(scopes.on_the_way(root)) == {"x.slice"}
    assert scopes.kind(root, "/other.slice") is None
    assert scopes.kind(root, "/x.slice") is Kind.ANCESTOR
    x = WatchedCgroup(root, "x.slice", "/x.slice", Kind.ANCESTOR, 2)
    assert set(scopes.on_the_way(x)) == {"a.scope", "y.slice"}
    assert scopes.kind(x, A) is Kind.SCOPE
    assert scopes.kind(x, f"{A}.d") is None
    a = WatchedCgroup(x, "a.scope", A, Kind.SCOPE, 3)
    assert scopes.kind(a, f"{A}/one") is Kind.MEMBER
    one = WatchedCgroup(a, "one", f"{A}/one", Kind.MEMBER, 4)
    assert (one.scope, one.suffix) == (A, "one")
    assert scopes.kind(one, INNER) is Kind.SCOPE, "a scope in a scope is one, too"
    inner = WatchedCgroup(one, "inner.scope", INNER, Kind.SCOPE, 5)
    deep = WatchedCgroup(inner, "deep", f"{INNER}/deep", Kind.MEMBER, 6)
    assert (deep.scope, deep.suffix) == (INNER, "deep")


def test_children_come_before_their_parents() -> None:
    root = WatchedCgroup(None, "", "", Kind.ANCESTOR, 1)
    for path in ("a", "b"):
        child = root.children[path] = WatchedCgroup(root, path, f"/{path}", Kind.MEMBER, 2)
        child.children["c"] = WatchedCgroup(child, "c", f"/{path}/c", Kind.MEMBER, 3)
    paths = [node.path for node in root.subtree()]
    assert sorted(paths) == ["", "/a", "/a/c", "/b", "/b/c"]
    assert all(paths.index(f"/{path}/c") < paths.index(f"/{path}") < paths.index("") for path in "ab")


def test_the_way_to_a_cgroup() -> None:
    root = WatchedCgroup(None, "", "", Kind.ANCESTOR, 1)
    scope = WatchedCgroup(root, "a.scope", "/a.scope", Kind.SCOPE, 2)
    member = WatchedCgroup(scope, "b", "/a.scope/b", Kind.MEMBER, 3)
    inner = WatchedCgroup(member, "c", "/a.scope/b/c", Kind.MEMBER, 4)
    place = Folders("/cg").place
    assert [place(node) for node in (scope, inner)] == [("/cg/a.scope", HERE), ("/cg/a.scope/b/c", HERE)]
    scope.folder = 7
    assert [place(node) for node in (scope, member, inner)] == [(".", 7), ("b", 7), ("b/c", 7)]


def test_the_path_of_a_deep_cgroup_does_not_grow_with_its_depth() -> None:
    root = WatchedCgroup(None, "", "", Kind.ANCESTOR, 1)
    node = WatchedCgroup(root, "a.scope", "/a.scope", Kind.SCOPE, 2)
    name = "ü" * 127
    for number in range(40):
        node = WatchedCgroup(node, name, node.path_of(name), Kind.MEMBER, number)
        if number < 15:
            assert node.path == "/a.scope" + f"/{name}" * (number + 1)
    assert len(node.path.encode()) < 4095 + 300
    assert node.path.startswith(f"/a.scope/{name}/")
    assert node.path.endswith(f"{name}/…/{name}")
    assert node.scope == "/a.scope"
    assert len(node.way) <= 800
