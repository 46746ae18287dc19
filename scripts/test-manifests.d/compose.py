"""What the schema of compose files cannot say of docker-compose.yml: that what it names is there,
and that it is as confined as it says. Prints every problem; exit code 1 if there is one.
"""

import re
import sys
from pathlib import Path

import yaml

# Whoever is reached from another machine: webhooks, and the API for applications.
PUBLIC = {"ingest", "api"}

problems = []
text = Path("docker-compose.yml").read_text()
compose = yaml.safe_load(text)
services = compose["services"]
# Every setting that there is, commented out or not.
settings = set(re.findall(r"^#?([A-Z][A-Z0-9_]+)=", Path(".env.example").read_text(), re.M))

for name, service in services.items():

    def problem(what, name=name):
        problems.append(f"{name}: {what}")

    for other, how in service.get("depends_on", {}).items():
        if other not in services:
            problem(f"depends on {other}, which is not there")
        elif how["condition"] == "service_healthy" and "test" not in services[other].get("healthcheck", {}):
            problem(f"waits until {other} is healthy, which nobody asks")
        elif how["condition"] == "service_completed_successfully" and "restart" in services[other]:
            problem(f"waits for the end of {other}, which is restarted for ever")
    for mount in service.get("volumes", []):
        source = mount.split(":")[0]
        if source.startswith("."):
            if not Path(source).exists():
                problem(f"mounts {source}, which is not there")
            if not mount.endswith(":ro"):
                problem(f"may change {source}")
        elif source not in compose["volumes"]:
            problem(f"mounts {source}, which is no volume")
    for port in service.get("ports", []):
        if not port.startswith("127.0.0.1:") and name not in PUBLIC:
            problem(f"publishes {port} beyond loopback")
    if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
        problem("keeps capabilities, or may gain privileges")
    if not service.get("read_only") and name != "rabbitmq":
        problem("may change its own files")
    if "restart" in service and "test" not in service.get("healthcheck", {}):
        problem("serves, and nobody asks how it is")
    if not re.search(r":[^:/]*\d|:local$", service["image"]):
        problem(f"the image {service['image']} has no version")
    if "build" in service:
        for setting in service["environment"]:
            if setting not in settings:
                problem(f"sets {setting}, which .env.example does not have")

for variable in set(re.findall(r"\$\{([A-Z_]+)", text)) - settings:
    problems.append(f"needs {variable}, which .env.example does not have")

for line in problems:
    print(f"  {line}")
print(f"  {len(services)} services")
sys.exit(1 if problems else 0)
