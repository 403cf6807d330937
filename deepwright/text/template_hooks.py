"""What is put into a parsed template so that it pays where jinja2 offers no other place: for the
turns of its loops and the text that stands in them, for comparisons, sums and lists.

The hooks are filters, because to a compiled template a filter is a plain function. They find the
meter of their rendering in `eval_ctx.meter`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.visitor import NodeTransformer

from deepwright.text.metering import LONG_CALL, SMALL, size

# Units of what stands in a loop: any part of an expression, a field that is asked for.
NODE, FIELD = 2, 20
BRANCH = 60  # a branch that costs more pays when it is taken
FEW = 4  # texts may be added up without a prediction, since the sum is only so much larger


def hooked(tree: nodes.Template) -> nodes.Template:
    """The same template, changed in place."""
    return _Hooks().visit(tree)


@jinja2.pass_eval_context
def _turn(context: Any, units: int) -> bool:
    meter = context.meter
    meter.left -= units
    if meter.left < 0:
        meter.ask_for_more()
    return True


@jinja2.pass_eval_context
def _made(context: Any, value: Any) -> Any:
    return context.meter.made(value)


@jinja2.pass_eval_context
def _scanned(context: Any, value: Any) -> Any:
    if type(value) not in SMALL:
        context.meter.scan(value)
    return value


@jinja2.pass_eval_context
def _searched(context: Any, value: Any) -> Any:
    """An object finds a name without looking at its members."""
    if type(value) is not dict:
        context.meter.scan(value)
    return value


@jinja2.pass_eval_context
def _sliced(context: Any, value: Any) -> Any:
    if hasattr(value, "__len__"):
        context.meter.spend(len(value) >> 3)
    return value


@jinja2.pass_eval_context
def _added(context: Any, *values: Any) -> Any:
    """a + b + ... of many."""
    meter = context.meter
    for value in values:
        meter.spend(len(values) * size(value, meter.left))
    return meter.made(reduce(add, values))


# Names that no template can write behind a bar.
HOOKS: dict[str, Callable[..., Any]] = {
    "+turn": _turn,
    "+made": _made,
    "+scanned": _scanned,
    "+searched": _searched,
    "+sliced": _sliced,
    "+added": _added,
}


def _hook(name: str, value: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    filtered = nodes.Filter(value, name, list(args), [], None, None, lineno=value.lineno)
    return filtered.set_environment(value.environment)


class _Hooks(NodeTransformer):
    """Puts the counting filters into a parsed template."""

    def __init__(self) -> None:
        self.units = 0  # of the nodes visited in the innermost loop or block so far
        self.kept = 0  # how many blocks around collect what is written, instead of handing it out

    def visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
        self.units += FIELD if isinstance(node, (nodes.Getattr, nodes.Getitem)) else NODE
        if isinstance(node, nodes.TemplateData):
            self.units += len(node.data)
        elif isinstance(node, nodes.Const) and isinstance(node.value, str):
            self.units += len(node.value)
        return super().visit(node, *args, **kwargs)

    def visit_For(self, node: nodes.For) -> nodes.Node:
        turn = self._counted(node)
        if node.test is not None:
            node.test = nodes.And(turn, node.test, lineno=node.lineno)
        return node

    def visit_If(self, node: nodes.If) -> nodes.Node:
        """A branch of some length pays when it is taken."""
        node.test = self.visit(node.test)
        node.elif_ = [self.visit(branch) for branch in node.elif_]
        for branch in (node.body, node.else_):
            before, self.units = self.units, 0
            branch[:] = [self.visit(statement) for statement in branch]
            if self.units > BRANCH:
                branch.insert(0, self._turn(node, self.units)[1])
                self.units = 0
            self.units += before
        return node

    def _keeps(self, node: Any) -> nodes.Node:
        self.units += LONG_CALL
        self.kept += 1
        self._counted(node)
        self.kept -= 1
        return node

    visit_Macro = visit_CallBlock = visit_FilterBlock = visit_AssignBlock = visit_Block = _keeps

    def _counted(self, node: Any) -> nodes.Filter:
        before, self.units = self.units, 0
        self.generic_visit(node)
        turn, statement = self._turn(node, self.units)
        node.body.insert(0, statement)
        self.units = before
        return turn

    def _turn(self, node: Any, units: int) -> tuple[nodes.Filter, nodes.Stmt]:
        constant = nodes.Const(units, lineno=node.lineno, environment=node.environment)
        turn = _hook("+turn", constant)
        statement = nodes.ExprStmt(turn, lineno=node.lineno, environment=node.environment)
        return turn, statement

    def visit_Output(self, node: nodes.Output) -> nodes.Node:
        """What is handed out is paid for by who takes it, what is collected is paid for here."""
        node.nodes = [self._written(child) for child in node.nodes]
        return node

    def _written(self, node: nodes.Expr) -> nodes.Expr:
        if isinstance(node, (nodes.Add, nodes.Concat)):
            node = self._sum(node)
        else:
            node = self.visit(node)
        return _unless_constant("+made", node) if self.kept else node

    def visit_Add(self, node: nodes.Add | nodes.Concat) -> nodes.Node:
        return _hook("+made", self._sum(node))

    visit_Concat = visit_Add

    def _sum(self, node: Any) -> Any:
        """a + b + ... and a ~ b ~ ...: a few as they are, many after a look at their sizes."""
        if isinstance(node, nodes.Concat):
            node.nodes = [self.visit(part) for part in node.nodes]
            if sum(not _constant(part) for part in node.nodes) > FEW:
                node.nodes = [_unless_constant("+made", part) for part in node.nodes]
            return node
        parts, left = [], node
        while isinstance(left, nodes.Add):
            parts.append(left.right)
            left = left.left
        first, *rest = [self.visit(part) for part in (left, *reversed(parts))]
        if sum(not _constant(part) for part in (first, *rest)) > FEW:
            return _hook("+added", first, *rest)
        for part in rest:
            first = nodes.Add(first, part, lineno=node.lineno, environment=node.environment)
        return first

    def _built(self, node: Any) -> nodes.Node:
        self.generic_visit(node)
        stored = isinstance(node, nodes.Tuple) and node.ctx != "load"
        return node if stored or _constant(node) else _hook("+made", node)

    visit_List = visit_Tuple = visit_Dict = _built

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        first, others = node.expr, [operand.expr for operand in node.ops]
        for operand in node.ops:
            name = "+searched" if operand.op in ("in", "notin") else "+scanned"
            if not _constant(operand.expr) and (name == "+searched" or not _constant(first)):
                operand.expr = _hook(name, operand.expr)
        if not any(map(_constant, others)):
            node.expr = _unless_constant("+scanned", first)
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _unless_constant("+sliced", node.node)
        else:  # a tuple is looked at to find its place
            node.arg = _unless_constant("+scanned", node.arg)
        return node


def _constant(node: nodes.Node) -> bool:
    """Whether the template's own text bounds it."""
    literal = isinstance(node, (nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair))
    children = node.iter_child_nodes() if literal else iter(())
    return isinstance(node, (nodes.Const, nodes.TemplateData)) or (
        literal and all(map(_constant, children))
    )


def _unless_constant(name: str, node: nodes.Expr) -> nodes.Expr:
    return node if _constant(node) else _hook(name, node)
