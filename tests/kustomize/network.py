"""Reading NetworkPolicies: what they allow."""

import ipaddress
from typing import Any

Object = dict[str, Any]


def matches(selector: Object | None, labels: dict[str, str]) -> bool:
    """Whether a label selector selects what has these labels."""
    if selector is None:
        return False
    pairs = selector.get("matchLabels", {})
    return all(labels.get(key) == value for key, value in pairs.items()) and all(
        (labels.get(each["key"]) in each["values"]) if each["operator"] == "In" else each["key"] in labels
        for each in selector.get("matchExpressions", [])
    )


class Network:
    """What the policies of a namespace allow its pods, read as the documentation of Kubernetes has it.

    A pod is `(namespace, labels)`; an address is text.
    """

    def __init__(self, objects: list[Object], namespace: str) -> None:
        self.namespace = namespace
        self._policies = [each["spec"] for each in objects if each["kind"] == "NetworkPolicy"]

    def is_confined(self, labels: dict[str, str]) -> bool:
        """Whether everything that is not allowed is denied to a pod, in both directions."""
        directions = [set(policy["policyTypes"]) for policy in self._of(labels)]
        return set().union(*directions) == {"Ingress", "Egress"}

    def sends(self, labels: dict[str, str], to: tuple[str, dict[str, str]] | str, port: int, protocol="TCP") -> bool:
        """Whether a pod may open connections to a pod or address."""
        policies = [policy for policy in self._of(labels) if "Egress" in policy["policyTypes"]]
        rules = [rule for policy in policies for rule in policy.get("egress") or []]
        return not policies or any(self._allows(rule, "to", to, port, protocol) for rule in rules)

    def receives(self, labels: dict[str, str], source: tuple[str, dict[str, str]] | str, port: int) -> bool:
        """Whether a pod takes connections from a pod or address."""
        policies = [policy for policy in self._of(labels) if "Ingress" in policy["policyTypes"]]
        rules = [rule for policy in policies for rule in policy.get("ingress") or []]
        return not policies or any(self._allows(rule, "from", source, port, "TCP") for rule in rules)

    def _of(self, labels: dict[str, str]) -> list[Object]:
        return [policy for policy in self._policies if matches(policy["podSelector"], labels)]

    def _allows(self, rule: Object, side: str, peer: Any, port: int, protocol: str) -> bool:
        ports = rule.get("ports")
        fits = not ports or any(each["port"] == port and each.get("protocol", "TCP") == protocol for each in ports)
        return fits and (side not in rule or any(self._is(each, peer) for each in rule[side]))

    def _is(self, rule: Object, peer: tuple[str, dict[str, str]] | str) -> bool:
        if isinstance(peer, str):
            block = rule.get("ipBlock")
            return bool(block) and ipaddress.ip_address(peer) in ipaddress.ip_network(block["cidr"])
        namespace, labels = peer
        if "ipBlock" in rule:
            return False
        in_namespace = namespace == self.namespace
        if "namespaceSelector" in rule:
            in_namespace = matches(rule["namespaceSelector"], {"kubernetes.io/metadata.name": namespace})
        return in_namespace and matches(rule.get("podSelector", {}), labels)
