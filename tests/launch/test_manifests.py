"""The manifests of launch/ against the schemas that their projects publish (schemas/README.md)."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from launch import commands
from launch.commands import LAUNCH
from launch.standins import StandIns

SCHEMAS = Path(__file__).parent / "schemas"
RETRIED, FINAL = {75, 130, 134, 143}, {1, 2}  # exit codes of research.main


def strict(schema):
    """The schema with every key refused that it does not list, as `kubectl apply` refuses them."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and "type" in schema:
        closed.setdefault("additionalProperties", False)
    return closed


JOBSET = jsonschema.Draft202012Validator(
    strict(json.loads((SCHEMAS / "jobset.json").read_text())),
    format_checker=jsonschema.FormatChecker(),
)
SKY = jsonschema.Draft202012Validator(json.loads((SCHEMAS / "sky.json").read_text()))


@pytest.fixture(params=["jobset-tpu.yaml", "jobset-gpu.yaml"])
def job_set(request, tmp_path):
    """A manifest, filled in with what README.md gives as an example."""
    (words,) = (
        each for each in commands.of_page(LAUNCH / "README.md") if request.param in each[-1]
    )
    programs = StandIns(tmp_path)
    done = programs.run(LAUNCH / "render.sh", LAUNCH / request.param, **commands.variables(words))
    assert done.returncode == 0, done.stderr
    return yaml.safe_load(done.stdout)


@pytest.fixture
def task():
    return yaml.safe_load((LAUNCH / "sky.yaml").read_text())


def worker(job_set):
    (workers,) = job_set["spec"]["replicatedJobs"]
    return workers["template"]["spec"]


def test_a_job_set_is_one_to_its_published_schema(job_set):
    JOBSET.validate(job_set)
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")


def refused(validator, document):
    """What a schema finds wrong: the words in quotes of its messages."""
    messages = [error.message for error in validator.iter_errors(document)]
    return {word for message in messages for word in re.findall(r"'(\S+)'", message)}


def misspelled(document, key):
    """A copy of `document` in which the first `key`, wherever it is, lacks its third letter."""
    changed = copy.deepcopy(document)
    nodes = [changed]
    while nodes:
        node = nodes.pop()
        if isinstance(node, dict) and key in node:
            node[key[:2] + key[3:]] = node.pop(key)
            return changed
        nodes += node.values() if isinstance(node, dict) else node if isinstance(node, list) else []
    raise KeyError(key)


def test_a_key_that_is_misspelled_in_a_job_set_is_refused_wherever_it_is(job_set):
    for key in ("failurePolicy", "maxRestarts", "template", "backoffLimit", "nodeSelector"):
        assert refused(JOBSET, misspelled(job_set, key)) >= {key[:2] + key[3:]}


def test_a_job_set_that_is_not_filled_in_is_refused():
    raw = yaml.safe_load((LAUNCH / "jobset-gpu.yaml").read_text())
    assert "${HOSTS}" in refused(JOBSET, raw)


def test_a_value_with_a_variable_in_it_is_refused_instead_of_filled_in_for_ever(tmp_path):
    programs = StandIns(tmp_path)
    done = programs.run(LAUNCH / "render.sh", LAUNCH / "jobset-gpu.yaml", NAME="${NAME}")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_job_set_starts_again_but_for_a_mistake(job_set):
    job = worker(job_set)
    (rule,) = job["podFailurePolicy"]["rules"]
    (container,) = job["template"]["spec"]["containers"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert set(rule["onExitCodes"]["values"]) == FINAL
    # Kubernetes lets a Job have such rules only if its pods never restart in place.
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["backoffLimit"] == 0  # or one pod would be started anew beside the old others
    policy = job_set["spec"]["failurePolicy"]
    assert policy["maxRestarts"] > 0
    (rule,) = policy["rules"]
    assert (rule["action"], rule["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert rule["name"].isalnum()  # the schema leaves this to the controller


def test_a_job_set_has_a_process_for_every_machine(job_set):
    job = worker(job_set)
    assert job["parallelism"] == job["completions"] > 1
    assert job["template"]["spec"]["nodeSelector"]
    (container,) = job["template"]["spec"]["containers"]
    (devices,) = container["resources"]["limits"].values()
    assert devices > 1


def test_the_task_of_sky_is_one_to_its_published_schema(task):
    SKY.validate(task)


def test_a_key_that_is_misspelled_in_the_task_of_sky_is_refused(task):
    for key in ("num_nodes", "accelerators"):
        assert refused(SKY, misspelled(task, key)) >= {key[:2] + key[3:]}


def test_sky_asks_for_what_could_cost_money_and_starts_again_but_for_a_mistake(task):
    assert task["envs"] == {"CONFIG": None, "WORKDIR": None}
    assert set(task["resources"]["job_recovery"]["recover_on_exit_codes"]) == RETRIED
    assert "max_restarts_on_errors" not in task["resources"]["job_recovery"]
