//! What the outcome of a condition says about variables: after `{% if x is defined %}`, `x` has a value.

use minijinja::machinery::ast::{BinOpKind, Expr, UnaryOpKind};

/// Tests that take text: they fail on a variable without a value, as filters do.
const READING_TESTS: [&str; 2] = ["endingwith", "startingwith"];

/// Tests that never hold for a variable without a value.
const VOUCHING_TESTS: [&str; 13] = [
    "boolean",
    "defined",
    "divisibleby",
    "even",
    "false",
    "float",
    "int",
    "integer",
    "mapping",
    "number",
    "odd",
    "string",
    "true",
];

/// The variables that have a value when a condition holds, and those that have one when it does not.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Vouched<'s> {
    pub(super) if_true: Vec<&'s str>,
    pub(super) if_false: Vec<&'s str>,
}

/// Whether a test can be asked of a variable without a value.
pub(super) fn may_ask(test: &str) -> bool {
    !READING_TESTS.contains(&test)
}

/// What a condition vouches for. Expressions are at most [`MAX_TAG_TOKENS`](super::budget::MAX_TAG_TOKENS) deep.
pub(super) fn vouched<'s>(condition: &Expr<'s>) -> Vouched<'s> {
    match condition {
        Expr::UnaryOp(node) if matches!(node.op, UnaryOpKind::Not) => {
            let Vouched { if_true, if_false } = vouched(&node.expr);
            Vouched { if_true: if_false, if_false: if_true }
        }
        Expr::BinOp(node) => {
            let (left, right) = (vouched(&node.left), vouched(&node.right));
            match node.op {
                BinOpKind::ScAnd => Vouched {
                    if_true: either(left.if_true, right.if_true),
                    if_false: both(&left.if_false, &right.if_false),
                },
                BinOpKind::ScOr => Vouched {
                    if_true: both(&left.if_true, &right.if_true),
                    if_false: either(left.if_false, right.if_false),
                },
                _ => Vouched::default(),
            }
        }
        Expr::Test(node) => match &node.expr {
            Expr::Var(var) if node.name == "undefined" => Vouched { if_false: vec![var.id], ..Vouched::default() },
            Expr::Var(var) if VOUCHING_TESTS.contains(&node.name) => {
                Vouched { if_true: vec![var.id], ..Vouched::default() }
            }
            _ => Vouched::default(),
        },
        _ => Vouched::default(),
    }
}

fn either<'s>(mut one: Vec<&'s str>, other: Vec<&'s str>) -> Vec<&'s str> {
    one.extend(other);
    one
}

fn both<'s>(one: &[&'s str], other: &[&'s str]) -> Vec<&'s str> {
    one.iter().copied().filter(|name| other.contains(name)).collect()
}
