"""Renders, compares and validates the manifests; run by scripts/manifests."""

import difflib
import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml

KUSTOMIZE = pathlib.Path("deploy/kustomize")
GOLDEN = pathlib.Path("tests/golden/kustomize")
# The oldest and the newest Kubernetes version that the validator has schemas for.
VERSIONS = ["1.25", "1.37"]


def render(folder):
    """Returns the objects of a kustomization, in an order independent of kubectl's version."""
    result = subprocess.run(
        ["kubectl", "kustomize", folder], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        sys.exit(f"manifests: kubectl kustomize {folder}: {result.stderr}")
    objects = [sort_by_name(it) for it in yaml.safe_load_all(result.stdout)]
    return sorted(objects, key=lambda it: (it["kind"], it["metadata"]["name"]))


def sort_by_name(value):
    """Sorts lists of named items, whose order differs between versions of kubectl.

    To the API such a list is a set.
    """
    if isinstance(value, dict):
        return {key: sort_by_name(it) for key, it in value.items()}
    if isinstance(value, list):
        items = [sort_by_name(it) for it in value]
        if all(isinstance(it, dict) and "name" in it for it in items):
            items.sort(key=lambda it: it["name"])
        return items
    return value


def compare(name, text, update):
    """Returns the diff between the golden file and `text`; rewrites the file if `update`."""
    golden = GOLDEN / f"{name}.yaml"
    if update:
        golden.parent.mkdir(parents=True, exist_ok=True)
        golden.write_text(text)
    expected = golden.read_text() if golden.exists() else ""
    lines = [it.splitlines(keepends=True) for it in (expected, text)]
    return "".join(difflib.unified_diff(*lines, str(golden), f"rendered {name}"))


def violations(objects):
    """Yields a message for each object that the API's schemas do not accept."""
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
        objects = render(folder)
        text = yaml.safe_dump_all(objects, sort_keys=True)
        problems = [compare(folder.name, text, update), *violations(objects)]
        problems = [it for it in problems if it]
        failed += bool(problems)
        outcome = "FAILED" if problems else "unchanged and valid"
        print(f"manifests: {folder.name}: {len(objects)} objects, {outcome}")
        for problem in problems:
            print(problem, file=sys.stderr)
    if failed:
        sys.exit("manifests: failed; `scripts/manifests --update` rewrites the golden files")


main()
