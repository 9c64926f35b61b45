"""What can be wrong with one node of a syntax tree."""

import ast
from collections.abc import Iterator

COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.RShift: ast.LShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.BitXor: ast.BitOr,
}
_PAIRS = (
    "min max",
    "minimum maximum",
    "amin amax",
    "floor ceil",
    "sum mean",
    "any all",
    "zeros ones",
    "sin cos",
    "avg_pool2d max_pool2d",
)
FUNCTIONS = {name: other for a, b in map(str.split, _PAIRS) for name, other in ((a, b), (b, a))}
# methods of a tensor without which the expression still makes sense
STEPS = {"abs", "clamp", "detach", "double", "exp", "float", "floor", "log", "round", "sqrt", "square"}


def replacements(node: ast.AST, field: str) -> Iterator[tuple[str, ast.AST | None]]:
    """Operators that apply to a node, each with what comes in its place; None takes an item out of its list.

    Args:
        node: it is not changed.
        field: the name under which its parent holds it.
    """
    if field in ("test", "ifs") and not isinstance(node, ast.Compare | ast.UnaryOp):
        yield "negate condition", ast.UnaryOp(ast.Not(), node)  # type: ignore[arg-type]
    match node:
        case ast.Compare(left, ops, comparators):
            for i, op in enumerate(ops):
                for other in COMPARISONS[type(op)]:
                    yield "swap comparison", ast.Compare(left, [*ops[:i], other(), *ops[i + 1 :]], comparators)
        case ast.BinOp(left, op, right) if type(op) in ARITHMETIC:
            yield "swap arithmetic", ast.BinOp(left, ARITHMETIC[type(op)](), right)
        case ast.AugAssign(target, op, value) if type(op) in ARITHMETIC:
            yield "swap arithmetic", ast.AugAssign(target, ARITHMETIC[type(op)](), value)
            yield "delete statement", ast.Pass()
        case ast.BoolOp(op, values):
            yield "swap logic", ast.BoolOp(ast.Or() if isinstance(op, ast.And) else ast.And(), values)
        case ast.UnaryOp(ast.Not() | ast.Invert() | ast.USub(), operand) if not isinstance(operand, ast.Constant):
            yield "remove sign", operand
        case ast.Constant(value):
            yield from (("change constant", ast.Constant(other)) for other in _others(value))
        case ast.IfExp(test, body, orelse):
            yield "swap branches", ast.IfExp(test, orelse, body)
        case ast.Call():
            yield from _calls(node)
        case ast.keyword(str()):
            yield "remove argument", None
        case ast.Return(value) if value is not None and not isinstance(value, ast.Constant):
            yield "return nothing", ast.Return(ast.Constant(None))
        case ast.Expr(ast.Call()) | ast.Raise():
            yield "delete statement", ast.Pass()
        case ast.Assign([ast.Name(name)], value) if _reads(value, name):
            yield "delete statement", ast.Pass()


def _others(value: object) -> list[bool | int | float]:
    match value:
        case bool():
            return [not value]
        case int():
            return [value + 1, value - 1]
        case float():
            return [2 * value if value else 1.0]
        case _:
            return []


def _calls(node: ast.Call) -> Iterator[tuple[str, ast.AST]]:
    match node.func:
        case ast.Name(name) if name in FUNCTIONS:
            yield "swap function", ast.Call(ast.Name(FUNCTIONS[name]), node.args, node.keywords)
        case ast.Attribute(value, name) if name in FUNCTIONS:
            yield "swap function", ast.Call(ast.Attribute(value, FUNCTIONS[name]), node.args, node.keywords)
        case ast.Attribute(value, name) if name in STEPS and not _is_module(value):
            yield "remove step", value
    match node:
        case ast.Call(ast.Attribute(_, "where"), [condition, first, second]):
            yield "swap branches", ast.Call(node.func, [condition, second, first], node.keywords)


def _is_module(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("torch", "math", "np", "F")


def _reads(node: ast.expr, name: str) -> bool:
    return any(isinstance(part, ast.Name) and part.id == name for part in ast.walk(node))
