//! How far `range` may count, told when the template is made rather than for each recipient.

use minijinja::machinery::ast::{BinOpKind, CallArg, Expr, UnaryOpKind};

/// The most numbers of one `range`; minijinja makes no more.
const RANGE_MAX: i64 = 100_000;

/// What is wrong with a call of `range` whose bounds are plain numbers. Others are bounded when it runs.
pub(super) fn fault(arguments: &[CallArg<'_>]) -> Option<String> {
    let bounds: Vec<Option<Number>> = arguments
        .iter()
        .map(|argument| match argument {
            CallArg::Pos(value) => number(value),
            CallArg::Kwarg(..) | CallArg::PosSplat(_) | CallArg::KwargSplat(_) => None,
        })
        .collect();
    let numbers = match bounds.as_slice() {
        [Some(Number::Beyond), ..] | [_, Some(Number::Beyond), ..] => None,
        [Some(Number::Whole(to))] => Some(*to),
        [Some(Number::Whole(from)), Some(Number::Whole(to))] => to.checked_sub(*from),
        _ => return None,
    };
    numbers.is_none_or(|numbers| numbers > RANGE_MAX).then(|| {
        format!("this `range` has too many numbers: it may have {RANGE_MAX} at most, and a message needs far less")
    })
}

/// The value of an expression of plain numbers.
enum Number {
    Whole(i64),
    /// Past 64 bits.
    Beyond,
}

fn number(expr: &Expr<'_>) -> Option<Number> {
    let of = |number: Option<i64>| Some(number.map_or(Number::Beyond, Number::Whole));
    match expr {
        Expr::Const(constant) => constant.value.as_i64().map(Number::Whole),
        Expr::UnaryOp(node) if matches!(node.op, UnaryOpKind::Neg) => match number(&node.expr)? {
            Number::Whole(number) => of(number.checked_neg()),
            Number::Beyond => Some(Number::Beyond),
        },
        Expr::BinOp(node) => {
            let (Number::Whole(left), Number::Whole(right)) = (number(&node.left)?, number(&node.right)?) else {
                return Some(Number::Beyond);
            };
            match node.op {
                BinOpKind::Add => of(left.checked_add(right)),
                BinOpKind::Sub => of(left.checked_sub(right)),
                BinOpKind::Mul => of(left.checked_mul(right)),
                BinOpKind::Pow => of(u32::try_from(right).ok().and_then(|right| left.checked_pow(right))),
                _ => None,
            }
        }
        _ => None,
    }
}
