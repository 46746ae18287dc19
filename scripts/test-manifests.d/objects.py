"""Kubernetes objects, as YAML on standard input: each by its schema, and all by what they say of
each other. Arguments: the versions of Kubernetes. Prints every problem; exit code 1 if there is one.
"""

import json
import sys
from pathlib import Path

import jsonschema
import kubernetes_validate
import yaml

OURS = Path(__file__).parent / "crds"
# Settings whose values are secret: never in an object.
SECRET = {"AMQP_PASSWORD", "AMQP_USERNAME", "DATABASE_URL", "CLERK_SECRET_KEY", "CLERK_WEBHOOK_SIGNING_SECRET",
          "OTEL_EXPORTER_OTLP_HEADERS"}

problems = []


def name(o):
    return f"{o['kind']}/{o['metadata']['name']}"


def problem(o, text):
    problems.append(f"{name(o)}: {text}")


def by_schema(o, versions):
    """The object by the schemas of Kubernetes, or of the operator that it is for."""
    group = o["apiVersion"].split("/")[0]
    if "." in group and not group.endswith(".k8s.io"):
        file = OURS / f"{o['kind']}.{group}.json"
        if not file.exists():
            return problem(o, f"no schema: {file.name} is not in {OURS.name}")
        schema = json.loads(file.read_text())
        for error in jsonschema.Draft202012Validator(schema).iter_errors(o):
            problem(o, f"{error.json_path}: {error.message[:200]}")
        return None
    for version in versions:
        try:
            kubernetes_validate.validate(o, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            where = ".".join(str(part) for part in error.path)
            problem(o, f"Kubernetes {version}: {where}: {error.message[:200]}")


def pod_of(o):
    """(labels, spec) of the pods that it makes, or None."""
    if o["kind"] in ("Deployment", "Job", "StatefulSet", "DaemonSet"):
        template = o["spec"]["template"]
        return template["metadata"]["labels"], template["spec"]
    return None


def confined(o):
    """What the Pod Security Standard `restricted` demands, and what we promise beyond it."""
    _, spec = pod_of(o)
    context = spec.get("securityContext", {})
    if context.get("runAsNonRoot") is not True:
        problem(o, "runAsNonRoot is not true")
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        problem(o, "seccomp is not RuntimeDefault")
    if spec.get("automountServiceAccountToken") is not False:
        problem(o, "a token is mounted")
    for container in spec["containers"]:
        own = container.get("securityContext", {})
        if own.get("readOnlyRootFilesystem") is not True:
            problem(o, "the root file system is not read-only")
        if own.get("allowPrivilegeEscalation") is not False:
            problem(o, "privileges may escalate")
        if own.get("capabilities", {}).get("drop") != ["ALL"]:
            problem(o, "capabilities are kept")
        resources = container.get("resources", {})
        if not {"cpu", "memory"} <= set(resources.get("requests", {})) or "memory" not in resources.get("limits", {}):
            problem(o, "requests of cpu and memory, or the limit of memory, are missing")
        if ":latest" in container["image"] or not set(":@") & set(container["image"]):
            problem(o, f"the image {container['image']} has no version")


def wired(o):
    """Ports have the names they are asked by, mounts have volumes, no secret is written down."""
    _, spec = pod_of(o)
    volumes = {volume["name"] for volume in spec.get("volumes", [])}
    for container in spec["containers"]:
        ports = {port["name"] for port in container.get("ports", [])}
        for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
            if probe in container and container[probe]["httpGet"]["port"] not in ports:
                problem(o, f"{probe} asks a port that is not there")
        if o["kind"] == "Deployment" and not {"livenessProbe", "readinessProbe"} <= set(container):
            problem(o, "a probe is missing")
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                problem(o, f"mounts {mount['name']}, which is no volume")
        seen = set()
        for variable in container.get("env", []):
            if variable["name"] in seen:
                problem(o, f"{variable['name']} is set twice")
            # $(NAME) is replaced only by what stands before it.
            for word in str(variable.get("value", "")).split("$(")[1:]:
                if word.split(")")[0] not in seen:
                    problem(o, f"{variable['name']} uses {word.split(')')[0]} before it is set")
            seen.add(variable["name"])
            if variable["name"] in SECRET and "valueFrom" not in variable:
                problem(o, f"the value of {variable['name']} is written down")


def selects(selector, pods):
    return [pod for pod in pods if all(pod[0].get(key) == value for key, value in selector.items())]


def related(objects):
    """What an object says of another one is so."""
    pods = [pod_of(o) for o in objects if pod_of(o)]
    named = {(o["kind"], o["metadata"]["name"]) for o in objects}
    if len(named) != len(objects):
        problems.append("two objects have the same kind and name")
    for o in objects:
        spec = o.get("spec", {})
        match o["kind"]:
            case "Deployment":
                if not selects(spec["selector"]["matchLabels"], [pod_of(o)]):
                    problem(o, "does not select its own pods")
                if len(selects(spec["selector"]["matchLabels"], pods)) != 1:
                    problem(o, "selects the pods of others")
            case "Service":
                found = selects(spec["selector"], pods)
                ports = {port["name"] for _, pod in found for c in pod["containers"] for port in c.get("ports", [])}
                for port in spec["ports"]:
                    if port["targetPort"] not in ports:
                        problem(o, f"the pods have no port {port['targetPort']}")
            case "PodDisruptionBudget":
                if len(selects(spec["selector"]["matchLabels"], pods)) != 1:
                    problem(o, "does not select the pods of one program")
            case "NetworkPolicy":
                if len(selects(spec["podSelector"]["matchLabels"], pods)) != 1:
                    problem(o, "does not select the pods of one program")
            case "PodMonitor":
                found = selects(spec["selector"]["matchLabels"], pods)
                for endpoint in spec["podMetricsEndpoints"]:
                    if not any(port["name"] == endpoint["port"] for _, pod in found for c in pod["containers"] for port in c.get("ports", [])):
                        problem(o, f"no pod has a port {endpoint['port']}")
            case "HorizontalPodAutoscaler":
                target = spec["scaleTargetRef"]
                if (target["kind"], target["name"]) not in named:
                    problem(o, f"there is no {target['kind']}/{target['name']}")
            case "ScaledObject":
                if ("Deployment", spec["scaleTargetRef"]["name"]) not in named:
                    problem(o, "there is no such Deployment")
                for trigger in spec["triggers"]:
                    if ("TriggerAuthentication", trigger["authenticationRef"]["name"]) not in named:
                        problem(o, "there is no such TriggerAuthentication")
            case "Ingress":
                for rule in spec["rules"]:
                    for path in rule["http"]["paths"]:
                        if ("Service", path["backend"]["service"]["name"]) not in named:
                            problem(o, "there is no such Service")
            case "Vhost" | "User" | "Permission":
                if ("RabbitmqCluster", spec["rabbitmqClusterReference"]["name"]) not in named:
                    problem(o, "there is no such RabbitmqCluster")
                if o["kind"] == "Permission" and ("User", spec["userReference"]["name"]) not in named:
                    problem(o, "there is no such User")
    for o in objects:
        if pod_of(o) is None:
            continue
        # A hook comes before the release's objects: it may not need one.
        account = pod_of(o)[1].get("serviceAccountName", "default")
        hook = "helm.sh/hook" in o["metadata"].get("annotations", {})
        if account != "default" and (hook or ("ServiceAccount", account) not in named):
            problem(o, f"there is no ServiceAccount/{account} then")
        if o["kind"] == "Deployment":
            scaled = [s for s in objects if s["kind"] in ("HorizontalPodAutoscaler", "ScaledObject") and s["spec"]["scaleTargetRef"]["name"] == o["metadata"]["name"]]
            if len(scaled) > 1:
                problem(o, "is scaled by two")
            if len(scaled) == 1 and "replicas" in o["spec"]:
                problem(o, "says replicas, and is scaled by another")


def main():
    versions = sys.argv[1:]
    objects = [o for o in yaml.safe_load_all(sys.stdin) if o]
    if not objects:
        problems.append("there is no object")
    for o in objects:
        by_schema(o, versions)
    if not problems:
        for o in objects:
            if pod_of(o):
                confined(o)
                wired(o)
        related(objects)
    for text in problems:
        print(f"  {text}")
    kinds = sorted({o["kind"] for o in objects})
    print(f"  {len(objects)} objects, {len(kinds)} kinds, Kubernetes {', '.join(versions)}")
    sys.exit(1 if problems else 0)


main()
