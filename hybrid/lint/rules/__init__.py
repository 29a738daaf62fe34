"""The rules, by family: KH0 package, KH1 values, KH2 control flow, KH3 artifacts, KH4 containers, KH5 platforms."""

from kfp_hybrid.lint.rule import RULES
from kfp_hybrid.lint.rules import artifacts, containers, control_flow, package, platforms, values

__all__ = ["RULES", "artifacts", "containers", "control_flow", "package", "platforms", "values"]

RULES.sort(key=lambda rule: rule.id)
