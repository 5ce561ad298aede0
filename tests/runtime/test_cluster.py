"""The place of a process among several, from variables."""

import pytest

from bit_jax.runtime import cluster, errors

TWO = {
  "JAX_COORDINATOR_ADDRESS": "first:1234",
  "JAX_NUM_PROCESSES": "2",
  "JAX_PROCESS_ID": "1",
}
SLURM = {
  "SLURM_JOB_ID": "77",
  "SLURM_STEP_NODELIST": "node[3-4]",
  "SLURM_NTASKS": "2",
  "SLURM_PROCID": "1",
  "SLURM_LOCALID": "0",
}


def test_variables_are_the_place(monkeypatch):
  assert cluster.find(TWO) == cluster.Place("first", 1234, 2, 1)
  bound = cluster.find({**TWO, "JAX_COORDINATOR_BIND_ADDRESS": "[::]:99"})
  assert (bound.port, bound.bind_port, bound.address) == (1234, 99, "first:1234")
  assert cluster.find({**TWO, "JAX_COORDINATOR_ADDRESS": "[::1]:80"}).host == "[::1]"


def test_a_cluster_fills_what_is_not_set(monkeypatch):
  for name, value in SLURM.items():
    monkeypatch.setenv(name, value)
  place = cluster.find(SLURM)
  assert (place.host, place.count, place.index, place.device_ids) == ("node3", 2, 1, (0,))
  assert cluster.find({**SLURM, "JAX_COORDINATOR_ADDRESS": "first:1"}).address == "first:1"


@pytest.mark.parametrize(
  ("changed", "said"),
  [
    ({"JAX_COORDINATOR_ADDRESS": "first"}, "first has no port: give host:port .* first:1234"),
    ({"JAX_COORDINATOR_ADDRESS": "first:"}, "has the port ''"),
    ({"JAX_COORDINATOR_ADDRESS": ":1234"}, "has no port"),
    ({"JAX_COORDINATOR_ADDRESS": "[::1]"}, "has no port"),
    ({"JAX_COORDINATOR_ADDRESS": "first:http"}, "the port 'http': it must be a number from 1 to"),
    ({"JAX_COORDINATOR_ADDRESS": "first:70000"}, "the port '70000'"),
    ({"JAX_NUM_PROCESSES": "two"}, "JAX_NUM_PROCESSES=two must be a whole number, 1 or more"),
    ({"JAX_NUM_PROCESSES": "0"}, "JAX_NUM_PROCESSES=0 must be"),
    ({"JAX_PROCESS_ID": "-1"}, "JAX_PROCESS_ID=-1 must be a whole number, 0 or more"),
    ({"JAX_PROCESS_ID": ""}, "JAX_PROCESS_ID is not set, and no cluster"),
  ],
)
def test_a_value_that_cannot_be_used_is_named(changed, said):
  with pytest.raises(errors.UserError, match=said):
    cluster.find({**TWO, **changed})


def test_nothing_is_set():
  with pytest.raises(errors.UserError, match="_ADDRESS and JAX_NUM_PROCESSES and JAX_PROCESS_ID"):
    cluster.find({})


def test_a_number_beyond_the_last_is_a_fault():
  assert cluster.find(TWO).fault is None
  fault = cluster.find({**TWO, "JAX_PROCESS_ID": "2"}).fault
  assert fault == (
    "JAX_PROCESS_ID=2 is not one of 2: processes are numbered from 0 to 1, as JAX_NUM_PROCESSES=2 "
    "says."
  )


@pytest.mark.parametrize(
  ("variables", "name"),
  [
    ({"JAX_NUM_PROCESSES": "2"}, "JAX_NUM_PROCESSES=2"),
    ({"JAX_COORDINATOR_ADDRESS": "first:1"}, "JAX_COORDINATOR_ADDRESS=first:1"),
    ({"OMPI_COMM_WORLD_SIZE": "4"}, "OMPI_COMM_WORLD_SIZE=4"),
    ({"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}, "SLURM_STEP_NUM_TASKS=2"),
    (SLURM, "SLURM_NTASKS=2"),
  ],
)
def test_one_of_several_must_not_run_alone(variables, name):
  with pytest.raises(errors.UserError, match=f"^{name} says .* add --distributed .* unset"):
    cluster.require_alone(variables)


@pytest.mark.parametrize(
  "variables",
  [
    {},
    {"JAX_NUM_PROCESSES": "1", "JAX_COORDINATOR_ADDRESS": "first:1"},
    {"OMPI_COMM_WORLD_SIZE": "1"},
    {"SLURM_NTASKS": "4", "SLURM_JOB_ID": "77"},  # an allocation, without srun
    {"SLURM_STEP_NUM_TASKS": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "node3"},
    {**SLURM, "SLURM_NTASKS": "1"},
  ],
)
def test_one_task_runs_alone(variables):
  cluster.require_alone(variables)
