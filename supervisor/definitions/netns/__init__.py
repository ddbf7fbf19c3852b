"""The notation of network namespaces: `netns.NAME = { … }` is a service whose worker keeps that namespace.

This room alone knows the name and the options of such a service; for everything else `netns@NAME` is a service like
any other.
"""


def service_name(namespace: str) -> str:
    """The name of the service that keeps a network namespace."""
    return f"netns@{namespace}"
