"""Recipes for schedulers and the image for workers: what can be known of them without a cluster and without docker."""

import os
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import yaml

from adcdnet.cluster.engine import Workers
from adcdnet.cluster.parts import Part
from conftest import ROOT

PAGE = (ROOT / "docs" / "how-to" / "many-scenes.md").read_text("utf-8")
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text("utf-8").replace("\\\n", " ")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.+?)^```", PAGE, re.DOTALL | re.MULTILINE)


SHELL = blocks("sh")
JOB, CLUSTER = map(yaml.safe_load, blocks("yaml"))
needs_bash = pytest.mark.skipif(sys.platform == "win32", reason="recipes are for bash")


def said(script: str, shell: str = "bash", **variables: str) -> list[str]:
    """The words of the command `adcdnet` that a script runs."""
    stand_in = 'adcdnet() { for word in "$@"; do printf "%s\\n" "$word"; done; }\n'
    environment = {"PATH": os.environ["PATH"], **variables}
    done = subprocess.run([shell, "-euc", stand_in + script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def part_of(words: list[str]) -> Part:
    return Part.read(words[words.index("--part") + 1])


@needs_bash
@pytest.mark.parametrize("script", [*SHELL, *re.findall(r"^RUN (.+)$", DOCKERFILE, re.MULTILINE)])
def test_shell_can_be_parsed(script):
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)


@needs_bash
def test_jobs_of_an_array_have_each_part_once():
    (slurm,) = (script for script in SHELL if "#SBATCH" in script)
    first, last = map(int, re.search(r"--array=(\d+)-(\d+)", slurm).groups())
    counted = [{"SLURM_ARRAY_TASK_ID": str(k), "SLURM_CPUS_PER_TASK": "4"} for k in (first, last)]
    assert [part_of(said(slurm, **job)) for job in counted] == [Part(1, 100), Part(100, 100)]
    (batch,) = (script for script in SHELL if "AWS_BATCH" in script)
    parts = [part_of(said(batch, AWS_BATCH_JOB_ARRAY_INDEX=k)) for k in ("0", "99")]  # a job array counts from 0
    assert parts == [Part(1, 100), Part(100, 100)]


@needs_bash
def test_pods_of_the_kubernetes_job_have_each_part_once():
    assert (JOB["apiVersion"], JOB["kind"], JOB["spec"]["completionMode"]) == ("batch/v1", "Job", "Indexed")
    pod = JOB["spec"]["template"]["spec"]
    assert pod["restartPolicy"] in ("OnFailure", "Never")  # a job knows no other
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert container["command"] == ["sh", "-c"]
    (script,) = container["args"]
    parts = [part_of(said(script, "sh", JOB_COMPLETION_INDEX=k)) for k in ("0", "99")]
    assert parts == [Part(1, JOB["spec"]["completions"]), Part(100, JOB["spec"]["completions"])]


def test_the_dask_cluster_has_a_scheduler_that_its_workers_and_service_agree_with():
    assert (CLUSTER["apiVersion"], CLUSTER["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    worker, scheduler = CLUSTER["spec"]["worker"], CLUSTER["spec"]["scheduler"]
    (of_worker,), (of_scheduler,) = worker["spec"]["containers"], scheduler["spec"]["containers"]
    assert (of_worker["args"][:2], of_scheduler["args"]) == (["dask", "worker"], ["dask", "scheduler"])
    assert of_worker["args"][of_worker["args"].index("--nthreads") + 1] == "1"
    name = CLUSTER["metadata"]["name"]
    assert scheduler["service"]["selector"]["dask.org/cluster-name"] == name
    ports = {port["name"]: port["containerPort"] for port in of_scheduler["ports"]}
    assert all(ports[port["targetPort"]] == port["port"] for port in scheduler["service"]["ports"])
    assert f"--scheduler tcp://{name}-scheduler:{ports['tcp-comm']}" in PAGE


def test_the_image_copies_what_is_there_and_installs_what_pyproject_names():
    for line in re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE):
        assert all((ROOT / name).exists() for name in line.split()[:-1]), line
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    copied = " ".join(re.findall(r"^COPY (.+)$", DOCKERFILE, re.MULTILINE)).split()
    assert {"pyproject.toml", "src", project["readme"], *project["license-files"]} <= set(copied)
    (extra,) = re.findall(r'"\.\[(\w+)\]"', DOCKERFILE)
    assert extra in project["optional-dependencies"]
    (version,) = re.findall(r"^FROM python:(\S+)-slim$", DOCKERFILE, re.MULTILINE)
    assert f"Programming Language :: Python :: {version}" in project["classifiers"]
    assert "libexpat1" in DOCKERFILE  # rasterio's wheels take it from the system, and slim images lack it


def test_workers_of_the_image_and_of_the_page_are_set_as_those_of_the_command():
    settings, prefix = Workers(count=1)._settings(), "distributed.nanny.pre-spawn-environ."
    wanted = {
        f"DASK_{name.upper().replace('.', '__')}": str(value) for name, value in settings.items() if value is False
    }
    memory = {name.removeprefix(prefix): str(value) for name, value in settings.items() if "MALLOC" in name}
    (line,) = re.findall(r"^ENV (.+)$", DOCKERFILE, re.MULTILINE)
    assert dict(word.split("=") for word in line.split()) == wanted | memory
    (started,) = (script for script in SHELL if "dask worker tcp" in script)
    words = shlex.split(started.replace("\\\n", " "))
    assert wanted.items() <= dict(word.split("=") for word in words if word.startswith("DASK_")).items()
