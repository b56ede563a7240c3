"""Do the tests notice a fault in the mathematics? mutmut, with functions that have decorators too.

    uv run --with mutmut==3.8.1 python .ci/mutation.py run
    uv run --with mutmut==3.8.1 python .ci/mutation.py results

mutmut leaves every function with a decorator out, since copies of it could register a thing twice. Here the decorators
are `no_grad`, `inference_mode`, `property`, `contextmanager` and caches, and below them stands much of what matters:
they stay on the function that tests call, and its changed copies go without. A text is changed once, where mutmut
would change it in three ways, and how a chart is drawn not at all. Of the tests that reach a change the quickest go
first. [tool.mutmut] says what is changed and which tests look.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import libcst
from mutmut.__main__ import cli
from mutmut.mutation import file_mutation, mutators
from mutmut.runners.harness import PytestRunner
from mutmut.state import state

ABSTRACT = "abstractmethod"

original_skip = file_mutation.MutationVisitor._skip_node_and_children
original_arrangement = file_mutation.function_trampoline_arrangement
original_arguments = PytestRunner._pytest_args_regular_run


def names_of(decorators: Iterable[libcst.Decorator]) -> list[str]:
    return [libcst.Module([]).code_for_node(each.decorator) for each in decorators]


def skip(self: file_mutation.MutationVisitor, node: libcst.CSTNode) -> bool:
    if isinstance(node, libcst.FunctionDef):
        if node.name.value.startswith("draw_"):
            return True
        if ABSTRACT not in names_of(node.decorators):
            node = node.with_changes(decorators=[])
    return original_skip(self, node)


def arrangement(function: libcst.FunctionDef, mutants: Iterable, class_name: str | None) -> tuple:
    if names_of(function.decorators) in (["classmethod"], ["staticmethod"]):
        return original_arrangement(function, mutants, class_name)
    bare = function.with_changes(decorators=[])
    declaration, methods, assignment, names = original_arrangement(bare, mutants, class_name)
    called, *copies = methods
    called = called.with_changes(decorators=[*function.decorators, *called.decorators])
    return declaration, [called, *copies], assignment, names


def change_once(node: libcst.BaseString) -> Iterator[libcst.BaseString]:
    return islice(mutators.operator_string(node), 1)


def quickest_first(self: PytestRunner, tests: Iterable[str]) -> list[str]:
    """What a fixture of a whole file runs, only its first test is seen to reach: then all tests of the file look."""
    files = {test.partition("::")[0] for test in tests}
    sharing = {file for file in files if "scope=" in Path(file).read_text(encoding="utf-8")}
    seconds = state().duration_by_test
    chosen = {*tests, *(test for test in seconds if test.partition("::")[0] in sharing)}
    return original_arguments(self, sorted(chosen, key=lambda test: seconds.get(test, 0.0)))


if __name__ == "__main__":
    mutators.mutation_operators[:] = [
        (kind, change_once if operator is mutators.operator_string else operator)
        for kind, operator in mutators.mutation_operators
    ]
    file_mutation.MutationVisitor._skip_node_and_children = skip
    file_mutation.function_trampoline_arrangement = arrangement
    PytestRunner._pytest_args_regular_run = quickest_first
    cli()
