"""Renders, compares and validates the manifests; run by scripts/manifests."""

import difflib
import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml

KUSTOMIZE = pathlib.Path("deploy/kustomize")
GOLDEN = pathlib.Path("tests/golden/kustomize")
# The oldest and the newest one that the validator has schemas of.
VERSIONS = ["1.25", "1.37"]


def rendered(folder):
    """The objects of a kustomization, in an order that does not depend on kubectl's version."""
    answer = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        sys.exit(f"manifests: kubectl kustomize {folder}: {answer.stderr}")
    objects = [by_name(it) for it in yaml.safe_load_all(answer.stdout)]
    return sorted(objects, key=lambda it: (it["kind"], it["metadata"]["name"]))


def by_name(value):
    """Lists of named things are sets to the API; kubectl's versions order them differently."""
    if isinstance(value, dict):
        return {key: by_name(it) for key, it in value.items()}
    if isinstance(value, list):
        items = [by_name(it) for it in value]
        if all(isinstance(it, dict) and "name" in it for it in items):
            items.sort(key=lambda it: it["name"])
        return items
    return value


def differences(name, text, update):
    """What differs from the kept text, which becomes `text` when it is to be updated."""
    golden = GOLDEN / f"{name}.yaml"
    if update:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    kept = golden.read_text() if golden.exists() else ""
    lines = [it.splitlines(keepends=True) for it in (kept, text)]
    return "".join(difflib.unified_diff(*lines, str(golden), f"rendered {name}"))


def violations(objects):
    """Where objects are not what the API's schemas say."""
    for version in VERSIONS:
        for item in objects:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(part) for part in error.path)
                yield f"{item['kind']} {item['metadata']['name']}: {version}: {where}: {error.message}"


def main():
    update = sys.argv[1:] == ["--update"]
    folders = [KUSTOMIZE / "base", *sorted((KUSTOMIZE / "overlays").iterdir())]
    failed = 0
    for folder in folders:
        objects = rendered(folder)
        text = yaml.safe_dump_all(objects, sort_keys=True)
        problems = [differences(folder.name, text, update), *violations(objects)]
        problems = [it for it in problems if it]
        failed += bool(problems)
        verdict = "WRONG" if problems else "as kept, and valid"
        print(f"manifests: {folder.name}: {len(objects)} objects, {verdict}")
        for problem in problems:
            print(problem, file=sys.stderr)
    if failed:
        sys.exit("manifests: see above; `scripts/manifests --update` keeps what is rendered now")


main()
