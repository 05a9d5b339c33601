#!/usr/bin/env python3
"""No manifest, rule or dashboard names what the programs don't have.

    names_test.py BIN_DIR

Metrics and labels are held against docs/metrics.md (which a test of its own holds against the
programs), flags against the programs' --help, configuration keys against the .proto files, and ports
against what the containers are told to listen on. Exit code 77: skipped, as PyYAML is missing.
"""
import json
import pathlib
import re
import subprocess
import sys

try:
    import yaml
except ImportError:
    print("SKIPPED: there is no PyYAML")
    sys.exit(77)

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = ["ddpo-learner", "ddpo-actor", "ddpo-reward-server", "ddpo-health"]
# Labels that Prometheus or an exporter adds.
ADDED_LABELS = {"job", "instance", "namespace", "pod", "le"}
# Of NVIDIA's DCGM exporter: dcgm-exporter/etc/default-counters.csv and its profiling fields.
DCGM = {"DCGM_FI_DEV_GPU_UTIL", "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "DCGM_FI_DEV_FB_USED",
        "DCGM_FI_DEV_POWER_USAGE", "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_SM_CLOCK",
        "DCGM_FI_DEV_XID_ERRORS", "DCGM_FI_PROF_NVLINK_TX_BYTES", "DCGM_FI_PROF_NVLINK_RX_BYTES"}
DCGM_PORT = 9400
NAME_SERVICE_PORT = 53

errors = []


def check(condition, message):
    if not condition:
        errors.append(message)


def documents(path):
    return [d for d in yaml.safe_load_all(path.read_text()) if d is not None]


# --- metrics -----------------------------------------------------------------------------------


def documented_metrics():
    """Name of each series → (its labels, the page's row)."""
    series = {}
    for line in (ROOT / "docs/metrics.md").read_text().splitlines():
        if not line.startswith("| `ddpo_"):
            continue
        name, kind, _, labels, _ = (cell.strip() for cell in line.strip("|").split("|"))
        name = name.strip("`")
        found = set(re.findall(r"`(\w+)`", labels))
        suffixes = ["_bucket", "_sum", "_count"] if kind == "histogram" else [""]
        for suffix in suffixes:
            series[name + suffix] = (found, line)
    return series


METRICS = documented_metrics()


def check_expression(expression, where, recorded):
    """Metric names, label names and the values of labels that are compared with =."""
    bare = re.sub(r'"[^"]*"', '""', expression)
    for name in re.findall(r"\b(?:ddpo|DCGM)_\w+|\b[a-z_]+:[a-z0-9_]+:[a-z0-9]+\b", bare):
        if ":" in name:
            check(name in recorded, f"{where}: no rule records {name}")
        elif name.startswith("DCGM"):
            check(name in DCGM, f"{where}: {name} is none of the DCGM exporter's")
        elif not re.search(rf"\w:{name}:", bare):  # a part of a recorded name
            check(name in METRICS, f"{where}: there is no metric {name}")
    for name, selectors in re.findall(r"\b(ddpo_\w+)\{([^}]*)\}", expression):
        labels, row = METRICS.get(name, (set(), ""))
        for label, operator, value in re.findall(r'(\w+)(=~|!~|!=|=)"([^"]*)"', selectors):
            check(label in labels | ADDED_LABELS, f"{where}: {name} has no label {label}")
            if label in labels - {"process", "scorer", "code"} and operator == "=" and not value.startswith("$"):
                check(f"`{value}`" in row, f"{where}: {name} has no {label} '{value}'")
    known = set().union(*(labels for labels, _ in METRICS.values())) | ADDED_LABELS | {"alertname"}
    for group in re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", expression):
        for label in filter(None, re.split(r"[,\s]+", group)):
            check(label in known, f"{where}: no metric has a label {label}")


def rule_groups():
    for path in sorted((DEPLOY / "prometheus/rules").glob("*.yml")):
        for document in documents(path):
            yield from document["groups"]


def check_rules():
    rules = [rule for group in rule_groups() for rule in group["rules"]]
    recorded = {rule["record"] for rule in rules if "record" in rule}
    tests = [t for path in (DEPLOY / "prometheus/tests").glob("*.yml") for d in documents(path) for t in d["tests"]]
    test_text = json.dumps(tests)
    for rule in rules:
        name = rule.get("alert") or rule["record"]
        check_expression(rule["expr"], name, recorded)
        if "record" in rule:
            check(f'"expr": "{name}"' in test_text, f"{name} has no test")
            continue
        page = rule["annotations"]["runbook_url"]
        check((ROOT / page).is_file(), f"{name}: there is no page {page}")
        check((ROOT / page).is_file() and f"`{name}`" in (ROOT / page).read_text(), f"{page} does not speak of {name}")
        check(f"{name} fires" in test_text, f"{name} has no test of firing")
        check(f'"alertname": "{name}", "exp_alerts": []' in test_text, f"{name} has no test of staying quiet")
    return recorded


def check_dashboards(recorded):
    uids = set()
    for path in sorted((DEPLOY / "grafana/dashboards").glob("*.json")):
        board = json.loads(path.read_text())
        check(board["uid"] not in uids, f"{path.name}: the uid {board['uid']} is another dashboard's")
        uids.add(board["uid"])
        for panel in board["panels"]:
            where = f"{path.name}: {panel['title']}"
            check(panel["description"], f"{where} does not say what to expect")
            for target in panel["targets"]:
                check(target["datasource"]["uid"] == "${datasource}", f"{where} does not use the datasource variable")
                check_expression(target["expr"], where, recorded)
    for rule in documents(DEPLOY / "kubernetes/components/autoscaling/adapter-rules.yaml")[0]["rules"]:
        for key in ("seriesQuery", "metricsQuery"):
            check_expression(re.sub(r"<<[^>]*>>", "", rule[key]), "adapter-rules.yaml", recorded)


# --- flags and ports ---------------------------------------------------------------------------


def flags_of(bin_dir):
    flags = {}
    for program in PROGRAMS:
        text = subprocess.run([f"{bin_dir}/{program}", "--help"], capture_output=True, text=True, check=True).stdout
        flags[program] = (set(re.findall(r"(--[a-z][a-z0-9-]*)", text)), text)
    return flags


def check_arguments(program, arguments, flags, where):
    """The ports that the process listens on."""
    ports = set()
    for argument in arguments:
        name, _, value = argument.partition("=")
        check(name in flags[program][0], f"{where}: {program} has no flag {name}")
        if name.endswith("-listen") or name == "--listen":
            ports.add(int(value.rpartition(":")[2]))
    return ports


def check_compose(flags):
    listening = {}
    for path in sorted((DEPLOY / "compose").glob("*.yaml")):
        document = yaml.safe_load(path.read_text())
        for name, service in (document.get("services") or {}).items():
            image = (service.get("image") or "").split(":")[0]
            program = image if image in PROGRAMS else next(
                (p for p in PROGRAMS if re.fullmatch(rf"{p.removeprefix('ddpo-')}(-\d+)?", name)), None)
            where = f"{path.name}: {name}"
            if program is None or "command" not in service:
                continue
            listening.setdefault(program, set()).update(check_arguments(program, service["command"], flags, where))
            for port in service.get("ports", []):
                inside = int(str(port).rpartition(":")[2])
                check(inside in listening[program], f"{where}: nothing listens on the published port {inside}")
    return listening


def check_dockerfile(listening):
    target = None
    for line in (DEPLOY / "docker/Dockerfile").read_text().splitlines():
        stage = re.match(r"FROM runtime AS (\S+)", line)
        if stage:
            target = f"ddpo-{stage[1]}"
        ports = {int(p) for p in re.findall(r"\b\d{4,5}\b", line)} if re.match(r"EXPOSE|  CMD", line) else set()
        check(ports <= listening.get(target, set()), f"Dockerfile, {target}: nothing listens on {ports - listening.get(target, set())}")


def check_prometheus(listening):
    every = set().union(*listening.values())
    for job in documents(DEPLOY / "prometheus/prometheus.yml")[0]["scrape_configs"]:
        port = job["dns_sd_configs"][0]["port"]
        if job["job_name"] == "dcgm":
            check(port == DCGM_PORT, f"prometheus.yml: the DCGM exporter listens on {DCGM_PORT}")
        else:
            check(job["job_name"] in PROGRAMS, f"prometheus.yml: no program is called {job['job_name']}")
            check(port in every, f"prometheus.yml: nothing listens on {port}")


def pod_specs(thing):
    spec = thing.get("spec", {})
    if thing["kind"] in ("Deployment", "Job"):
        yield spec["template"]["spec"]


def check_kubernetes(flags):
    ports, names = set(), {"metrics": set()}
    things = []
    for path in sorted((DEPLOY / "kubernetes").rglob("*.yaml")):
        for document in documents(path):
            if isinstance(document, dict) and "kind" in document:
                things.append((path, document))
            # JSON patches that add arguments, in a folder's file for each process.
            elif isinstance(document, list):
                program = f"ddpo-{path.stem}"
                added = [step["value"] for step in document if step["path"].endswith("/args/-")]
                if added:
                    ports |= check_arguments(program, added, flags, f"{path.parent.name}/{path.name}")
    for path, thing in things:
        where = f"{path.relative_to(DEPLOY)}: {thing['kind']}"
        for pod in pod_specs(thing):
            for container in pod["containers"]:
                program = container["image"]
                listening = check_arguments(program, container["args"], flags, where)
                ports |= listening
                for port in container["ports"]:
                    check(port["containerPort"] in listening, f"{where}: {program} does not listen on {port}")
                    names.setdefault(port["name"], set()).add(program)
                for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                    grpc = container[probe]["grpc"]
                    check(grpc["port"] in listening, f"{where}: {probe} asks a port that is not there, {grpc['port']}")
                    check(grpc.get("service", "") in flags[program][1], f"{where}: {program} does not know {grpc}")
    for path, thing in things:
        where = f"{path.relative_to(DEPLOY)}: {thing['kind']} {thing.get('metadata', {}).get('name')}"
        text = json.dumps(thing.get("spec", {}))
        if thing["kind"] == "Service":
            for port in thing["spec"]["ports"]:
                check(port["targetPort"] in names and port["port"] in ports, f"{where}: {port}")
        if thing["kind"] == "PodMonitor":
            for endpoint in thing["spec"]["podMetricsEndpoints"]:
                check(endpoint["port"] in names, f"{where}: no container has a port {endpoint['port']}")
        if thing["kind"] == "NetworkPolicy":
            for port in map(int, re.findall(r'"port": (\d+)', text)):
                check(port in ports | {NAME_SERVICE_PORT}, f"{where}: nothing listens on {port}")


# --- configuration -----------------------------------------------------------------------------


def config_messages():
    """Message name → field → the field's message, or None for a plain value."""
    messages = {}
    for path in (ROOT / "proto/ddpo/config/v1").glob("*.proto"):
        message = None
        for line in path.read_text().splitlines():
            start = re.match(r"message (\w+) \{", line)
            field = re.match(r"  (?:repeated |optional )?([\w.]+|map<[^>]*>) (\w+) = \d+", line)
            if start:
                message = messages.setdefault(start[1], {})
            elif field and message is not None:
                message[field[2]] = field[1]
    return messages


def check_keys(value, message, messages, where):
    if isinstance(value, list):
        for item in value:
            check_keys(item, message, messages, where)
    elif isinstance(value, dict) and message in messages:
        for key, item in value.items():
            check(key in messages[message], f"{where}.{key}: the configuration has no such key")
            check_keys(item, messages[message].get(key), messages, f"{where}.{key}")


def check_configurations():
    messages = config_messages()
    check("Config" in messages and "training" in messages["Config"], "config.proto was not understood")
    files = list(DEPLOY.rglob("run*.yaml"))
    check(files, "no configuration was found")
    for path in files:
        check_keys(yaml.safe_load(path.read_text()), "Config", messages, str(path.relative_to(DEPLOY)))
    # Keys that pages and manifests mention, as in `training.max_staleness`.
    sections = {key: kind for key, kind in messages["Config"].items() if kind in messages}
    for path in [*ROOT.glob("docs/runbooks/*.md"), *(ROOT / f"docs/{page}.md" for page in ("metrics", "operating", "sizing", "threats")),
                 *DEPLOY.rglob("*.yaml"), *DEPLOY.rglob("*.yml")]:
        if path.name == "prometheus-rules.yaml":
            continue
        for section, key in re.findall(r"(?<![\w./-])(\w+)\.([a-z_]+)\b(?![./(])", path.read_text()):
            if section in sections and key not in ("yaml", "yml", "md", "proto", "cc", "json", "txt"):
                check(key in messages[sections[section]], f"{path.relative_to(ROOT)}: there is no {section}.{key}")


def main():
    flags = flags_of(sys.argv[1])
    recorded = check_rules()
    check_dashboards(recorded)
    listening = check_compose(flags)
    check_dockerfile(listening)
    check_prometheus(listening)
    check_kubernetes(flags)
    check_configurations()
    for error in errors:
        print(error)
    print(f"{len(errors)} names that are not there")
    sys.exit(1 if errors else 0)


main()
