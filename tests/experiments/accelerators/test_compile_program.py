"""The compilation of one program for an accelerator: here for the CPU devices of this process."""

import json
import types

import jax
import pytest

from bit_jax.models import architectures
from bit_jax.runtime import errors
from bit_jax.training import planning
from experiments.accelerators import cases, compile_program, compiler, figures, targets, traffic

WHOLE = cases.Case("cpu", 2, "R14x0.5", 32, dtype="bfloat16")


@pytest.fixture
def memory(monkeypatch):
  """Makes the CPU devices of this process a target; returns a function that sets their memory."""

  def set_memory(size):
    found = targets.Target("cpu", size, "", lambda count: jax.devices()[:count], "jax")
    monkeypatch.setitem(targets.TARGETS, "cpu", found)

  set_memory(10**11)
  return set_memory


@pytest.mark.parametrize(
  ("target", "package"), [("h100", r"jax\[cuda13\]"), ("v5e", r"jax\[tpu\]")]
)
def test_a_missing_compiler_is_named(target, package):
  with pytest.raises(errors.UserError, match=rf"{target} needs {package}"):
    compile_program.main(["", target])


@pytest.mark.slow
@pytest.mark.usefixtures("memory")
def test_a_step_that_fits_is_compiled_whole_and_once(monkeypatch):
  found = compile_program.record(WHOLE, None, {})
  assert (found["images"], found["whole"], found["larger"]) == (256, True, None)
  planner = compiler.Compiler(WHOLE, {})
  compiled = planner.lower(planner.plan()).compile()
  moved = sum(kernel.bytes for kernel in traffic.kernels(compiled.as_text()))
  assert compiled.cost_analysis()["bytes accessed"] == pytest.approx(256 * found["moved"])
  assert 0.2 < moved / (256 * found["moved"]) < 5  # two ways to count
  assert found["bytes"] == planning.program_bytes(compiled)
  assert planner.task.state_bytes < found["arguments"] < found["bytes"]
  assert found["kernels"] == len(list(traffic.kernels(compiled.as_text())))

  known = json.loads(json.dumps(found))
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(figures, "figures", lambda *_: pytest.fail("compiled again"))
    assert compile_program.record(WHOLE, None, known) == known
  monkeypatch.setattr(figures, "figures", lambda *_: {"moved": 1, "bytes": 2})
  assert compile_program.record(WHOLE, None, known | {"lowered": "another program"})["moved"] == 1
  shown = compile_program.report(WHOLE, found)
  assert "2 x cpu R14x0.5 32 px training bfloat16 (cpu), 256 images at once" in shown
  ratio = found["moved"] / found["ideal"]
  assert f"{found['moved'] / 1e6:.1f} MB an image: {ratio:.2f} times" in shown


@pytest.mark.slow
def test_what_does_not_fit_is_compiled_in_micro_batches_and_the_next_larger_is_asked_for(
  memory, monkeypatch
):
  asked = []

  class Counted(compiler.Compiler):
    def _program_bytes(self, task, program, images):
      asked.append((program, images))
      return 1e6 * images

  monkeypatch.setattr(compile_program, "Compiler", Counted)
  planner = compiler.Compiler(WHOLE, {})
  waiting = 5 * 256 * 34 * 34 * 3
  memory(int(planner.task.state_bytes + (9e6 + waiting) / 0.9))
  found = compile_program.record(WHOLE, None, {})
  assert (found["images"], found["whole"], found["larger"]) == (8, False, 16)
  assert found["budget"] == pytest.approx(9e6, rel=1e-3)
  assert (found["used"], found["larger_used"]) == (8e6, 16e6)
  assert asked[-1] == ("passes", 16)

  # The passes move 12 bytes for each parameter, the step 50 (the roofline's has ten classes).
  whole, part = (figures.ideal_bytes(WHOLE, 8, whole=w) for w in (True, False))
  ten = architectures.num_parameters(planner.model.architecture, 10)
  assert whole - part == pytest.approx((50 * ten - 12 * planner.task.num_parameters) / 8)


@pytest.mark.usefixtures("memory")
def test_a_program_that_was_tried_is_not_compiled_again(monkeypatch):
  """Also one that the compiler refused, as TPU's does."""
  asked = []
  answer = {"compiled": None}
  fake = types.SimpleNamespace(as_text=lambda: "program")
  monkeypatch.setattr(planning, "lower", lambda *_: fake)
  monkeypatch.setattr(
    planning, "compile_if_it_fits", lambda _: asked.append(1) or answer["compiled"]
  )
  planner = compiler.Compiler(WHOLE, {})
  planned = compiler.Planned(8, False, False, 9e6, 16)
  assert planner.used(planned, 16) is None
  assert planner.used(planned, 16) is None
  assert asked == [1]
  again = compiler.Compiler(WHOLE, planner.tried)
  assert again.used(planned, 16) is None
  assert asked == [1]


@pytest.mark.usefixtures("memory")
@pytest.mark.parametrize(("count", "message"), [(3, "512 can't be distributed over 3")])
def test_a_number_of_devices_that_does_not_divide_the_batch(count, message):
  with pytest.raises(errors.UserError, match=message):
    compile_program.main(["", "cpu", f"--devices={count}"])


@pytest.mark.slow
@pytest.mark.usefixtures("memory")
def test_an_evaluation_moves_less_than_a_step():
  case = cases.Case("cpu", 2, "R14x0.5", 32, cases.EVALUATION)
  found = compile_program.record(case, None, {})
  assert (found["images"], found["dtype"], found["larger_used"]) == (128, "float32", None)
  assert found["ideal"] < figures.ideal_bytes(WHOLE, 128, whole=True) / 2


@pytest.mark.usefixtures("memory")
def test_what_does_not_compile_is_recorded(monkeypatch, tmp_path):
  def refuse(*_):
    raise jax.errors.JaxRuntimeError("INTERNAL: no tile sizes\nmore lines")

  monkeypatch.setattr(compile_program, "record", refuse)
  command = ["", "cpu", f"--record={tmp_path / 'record.json'}"]
  compile_program.main(command)
  found = json.loads((tmp_path / "record.json").read_text())
  assert found == {"error": "does not compile: INTERNAL: no tile sizes"}
  with pytest.raises(jax.errors.JaxRuntimeError):
    compile_program.main(command[:2])
