"""Make the schemas beside this file from what their projects publish; see README.md.

python tests/launch/schemas/reduce.py jobset jobset.x-k8s.io_jobsets.yaml
python tests/launch/schemas/reduce.py sky    # in an environment with skypilot
"""

import json
import sys
from pathlib import Path

import yaml


def bare(node):
    """The schema without its prose."""
    if isinstance(node, dict):
        return {
            key: bare(value)
            for key, value in node.items()
            if not (key == "description" and isinstance(value, str))
        }
    return [bare(each) for each in node] if isinstance(node, list) else node


def jobset(path):
    """The schema of v1alpha2 from the CustomResourceDefinition, without the status."""
    versions = yaml.safe_load(Path(path).read_text())["spec"]["versions"]
    (schema,) = [
        each["schema"]["openAPIV3Schema"] for each in versions if each["name"] == "v1alpha2"
    ]
    del schema["properties"]["status"]
    return bare(schema)


def sky():
    """SkyPilot's schemas of a task and, under `resources`, of what it asks for."""
    from sky.utils import schemas

    task = schemas.get_task_schema()
    task["properties"]["resources"] = schemas.get_resources_schema()
    return bare(task)


if __name__ == "__main__":
    name, *rest = sys.argv[1:]
    made = {"jobset": jobset, "sky": sky}[name](*rest)
    text = json.dumps(made, separators=(",", ":"), sort_keys=True)
    Path(__file__).with_name(f"{name}.json").write_text(text + "\n")
