"""The notation of network namespaces: `netns.NAME = { … }` is a service whose worker keeps that namespace.

Only this room knows the name and the options of such a service. Elsewhere `netns@NAME` is a service like any other.
"""


def service_name(namespace: str) -> str:
    """Return the name of the service that keeps a network namespace."""
    return f"netns@{namespace}"
