"""Values that the chart's schema must refuse, each with what must be named. Arguments: helm and the
chart. A schema that refuses nothing is worth nothing.
"""

import subprocess
import sys

REFUSED = [
    # (arguments of helm template, what the answer must name)
    (["--set", "ingest.replica=3"], "replica"),
    (["--set", "unknown=1"], "unknown"),
    (["--set", "env.DATABASE_URL=postgres://u:p@h/d"], "DATABASE_URL"),
    (["--set", "worker.env.AMQP_URL=amqp://u:p@h"], "AMQP_URL"),
    (["--set", "env.CLERK_SECRET_KEY=sk_live_x"], "CLERK_SECRET_KEY"),
    (["--set", "env.OTEL_EXPORTER_OTLP_HEADERS=a=b"], "OTEL_EXPORTER_OTLP_HEADERS"),
    (["--set", "env.QUEUE_MAX_BYTES=4294967296"], "QUEUE_MAX_BYTES"),
    (["--set", "image.digest=sha256:abc"], "digest"),
    (["--set", "worker.autoscaling.type=both"], "type"),
    (["--set", "rabbitmq.replicas=2"], "replicas"),
    (["--set", "ingest.ingress.enabled=true"], "host"),
    (["--set", "ingest.terminationGracePeriodSeconds=5"], "terminationGracePeriodSeconds"),
    (["--set", "amqpCa.secret=a,amqpCa.configMap=b"], "amqpCa"),
    (["--set", "existingSecret="], "existingSecret"),
]

helm, chart = sys.argv[1:]
failed = False
for arguments, names in REFUSED:
    run = subprocess.run([helm, "template", "t", chart, *arguments], capture_output=True, text=True)
    if run.returncode == 0:
        print(f"  {' '.join(arguments)} is not refused")
        failed = True
    elif names not in run.stderr or "schema" not in run.stderr:
        print(f"  {' '.join(arguments)} is refused for another reason: {run.stderr.strip()[:300]}")
        failed = True
print(f"  {len(REFUSED)} wrong values")
sys.exit(1 if failed else 0)
