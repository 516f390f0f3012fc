"""Tasks pass their own tests, wrong programs fail them, and no held-out task is in the training data."""

from __future__ import annotations

import ast
from collections import Counter
from functools import cache
from itertools import islice
from random import Random
from typing import Any

import pytest

from donod_fast.studies.family import Task, generate_tasks, is_held_out
from donod_fast.studies.family.hidden_tests import FEWEST, LONGEST_OUTPUT, MOST, mutants, outputs, pool
from donod_fast.studies.family.operations import CONDITIONS, OPERATIONS
from donod_fast.studies.family.programs import Program, Step, branch_of, step_of
from donod_fast.studies.family.tasks import TRAINING_KINDS, draw_programs


@cache
def tasks() -> list[Task]:
    return generate_tasks(100, 5)


def passes(task: Task, program: str) -> bool:
    """Whether a program passes the task's hidden test, by plain ``exec``."""
    space: dict[str, Any] = {}
    exec(task.test, space)
    try:
        exec(program, space)
        space["check"](space[task.entry_point])
    except Exception:
        return False
    return True


def test_every_canonical_solution_passes_its_hidden_test() -> None:
    assert all(passes(task, task.prompt + task.solution) for task in tasks())


def test_every_mutant_that_differs_somewhere_fails_the_hidden_test() -> None:
    killed = survived = 0
    for task in tasks()[:50]:
        values = pool(task.program.takes)
        argument = task.prompt[task.prompt.index("(") + 1 : task.prompt.index(")")]
        for mutant in mutants(task.program):
            if not mutant.steps or "" in (found := outputs(mutant, values)):
                continue  # types that do not fit
            if found == outputs(task.program, values):
                continue  # means the same
            if passes(task, task.prompt + mutant.body(argument)):
                survived += 1
            else:
                killed += 1
    assert killed > 1000
    # Those that differ only where the output is too long to be written down may survive.
    assert survived <= killed / 200


def test_an_empty_body_and_the_argument_itself_fail() -> None:
    for task in tasks():
        argument = task.prompt[task.prompt.index("(") + 1 : task.prompt.index(")")]
        assert not passes(task, task.prompt + "    pass\n")
        assert not passes(task, task.prompt + f"    return {argument}\n")


def test_tasks_depend_on_the_seed_and_fewer_tasks_are_a_prefix() -> None:
    assert generate_tasks(30, 5) == tasks()[:30]
    assert generate_tasks(30, 6) != tasks()[:30]


def test_tasks_differ_and_excluded_programs_are_not_drawn() -> None:
    programs = {task.program for task in tasks()}
    assert len(programs) == len(tasks())
    assert len({task.task_id for task in tasks()}) == len(tasks())
    assert not programs & {task.program for task in generate_tasks(50, 5, exclude=programs)}


def test_every_kind_of_task_is_drawn_and_tests_have_the_promised_size() -> None:
    kinds = Counter(task.kind for task in tasks())
    assert set(kinds) == {"chain2", "chain3", "branch"}
    assert min(kinds.values()) >= 4
    for task in tasks():
        asserts = task.test.splitlines()[1:]
        assert FEWEST <= len(asserts) <= MOST
        assert all(len(line) < 2 * LONGEST_OUTPUT + 40 for line in asserts)


def test_held_out_and_training_programs_have_no_signature_in_common() -> None:
    training = draw_programs(Random(1), TRAINING_KINDS, held_out=False)
    seen = {program.signature for program in islice(training, 4000)}
    held = {task.signature for task in tasks()}
    assert not seen & held
    assert all(is_held_out(signature) for signature in held)
    assert not any(is_held_out(signature) for signature in seen)


def test_training_covers_every_operation_and_condition() -> None:
    training = draw_programs(Random(1), TRAINING_KINDS, held_out=False)
    seen = Counter(name for program in islice(training, 4000) for name in program.names)
    assert set(seen) == {one.name for one in OPERATIONS} | {"if_" + one.name for one in CONDITIONS}
    assert not any(is_held_out((one.name,)) for one in OPERATIONS)


def test_a_signature_does_not_tell_order_or_constants() -> None:
    double, add = step_of("double", Random(0)), step_of("add", Random(0))
    other = Step(add.operation, next(k for k in add.operation.constants if k != add.constant))
    signatures = {Program(steps).signature for steps in ((double, add), (add, double), (other, double))}
    assert signatures == {("add", "double")}


def test_a_program_that_is_written_says_what_it_computes() -> None:
    add, double = Step(step_of("add", Random(0)).operation, "3"), step_of("double", Random(0))
    chain = Program((add, double))
    assert chain.body("n") == "    result = n + 3\n    return result * 2\n"
    assert chain(4) == 14
    branch = branch_of("even", add, double, Random(0))
    assert branch.body("n") == "    if n % 2 == 0:\n        return n + 3\n    return n * 2\n"
    assert [branch(4), branch(5)] == [7, 10]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.name)
def test_an_operation_gives_the_type_that_it_promises(operation: Any) -> None:
    expected = {"number": int, "list": list, "text": str}[operation.gives]
    for constant in operation.constants or ("",):
        program = Program((Step(operation, constant),))
        ast.parse("def f(v):\n" + program.body("v"))
        assert all(type(program(value)) is expected for value in pool(operation.takes))


def test_no_two_operations_or_conditions_have_the_same_wording() -> None:
    for parts in (OPERATIONS, CONDITIONS):
        said = Counter((part.takes, phrase) for part in parts for phrase in part.phrases)
        assert said.most_common(1)[0][1] == 1
