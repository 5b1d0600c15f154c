"""Write the rules of docker/prometheus as a PrometheusRule: `python -m tests.kubernetes`."""

from tests.kubernetes.manifests import PROMETHEUS_RULE, prometheus_rule

if __name__ == "__main__":
    PROMETHEUS_RULE.write_text(prometheus_rule())
