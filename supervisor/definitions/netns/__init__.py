"""The notation of network namespaces: `netns.NAME = { … }` is a service whose worker keeps that namespace.

Here alone is it known what such a worker is called and what it takes; for whoever runs services
`netns@NAME` is one like any other.
"""


def service_name(namespace: str) -> str:
    """The name of the service that keeps a network namespace."""
    return f"netns@{namespace}"
