//! Checks every name a template uses, and collects its variables and those among them that it cannot do without.
//!
//! Filters, tests and functions must be on a list; attributes exist on `loop` only, because a recipient's fields are
//! plain text. So nothing a template says can reach further than its recipient's fields, and a misspelt name is told
//! when the template is made, not when half the campaign is sent.

use std::fmt::Display;

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, Filter, Macro, Stmt};

use super::{
    Part,
    budget::MAX_VARIABLES,
    engine::{FILTERS, LOOP_FIELDS, RANGE, TESTS, nearest},
    error::TemplateError,
    escape::breaks_a_line,
    range,
    vouched::{may_ask, vouched},
};

/// Walks the nodes of one part in reading order. Expressions are at most
/// [`MAX_TAG_TOKENS`](super::budget::MAX_TAG_TOKENS) deep, blocks at most
/// [`MAX_BLOCK_DEPTH`](super::budget::MAX_BLOCK_DEPTH), so the recursion is bounded.
pub(super) struct Names<'s> {
    part: Part,
    source: &'s str,
    /// Names the template itself has set, innermost scope last.
    scopes: Vec<Vec<&'s str>>,
    /// Variables met since the last [`Self::take`], each once, in reading order.
    met: Vec<&'s str>,
    /// Variables that have a value here, because a condition around this place asks for them.
    assured: Vec<&'s str>,
    /// Variables a recipient fails without, each once, with the byte where that first is so.
    needed: Vec<(&'s str, u32)>,
}

impl<'s> Names<'s> {
    pub(super) fn new(part: Part, source: &'s str) -> Self {
        Self { part, source, scopes: vec![Vec::new()], met: Vec::new(), assured: Vec::new(), needed: Vec::new() }
    }

    /// Checks a node and hands back the recipient's variables in it, in reading order.
    pub(super) fn check(&mut self, node: &Stmt<'s>) -> Result<Vec<&'s str>, TemplateError> {
        self.node(node)?;
        Ok(std::mem::take(&mut self.met))
    }

    /// The variables that a recipient fails without, by what has been checked, with the byte of the source.
    pub(super) fn needed(self) -> Vec<(&'s str, u32)> {
        self.needed
    }

    fn nodes(&mut self, nodes: &[Stmt<'s>]) -> Result<(), TemplateError> {
        nodes.iter().try_for_each(|node| self.node(node))
    }

    fn node(&mut self, node: &Stmt<'s>) -> Result<(), TemplateError> {
        match node {
            Stmt::Template(template) => self.nodes(&template.children),
            Stmt::EmitRaw(raw) => self.literal(raw.raw, raw.span().start_offset),
            Stmt::EmitExpr(emit) => self.expr(&emit.expr),
            Stmt::ForLoop(node) => {
                self.expr(&node.iter)?;
                self.scoped(|names| {
                    names.set(&node.target)?;
                    names.declare("loop");
                    names.maybe(node.filter_expr.as_ref())?;
                    names.nodes(&node.body)
                })?;
                self.scoped(|names| names.nodes(&node.else_body)).map(drop)
            }
            Stmt::IfCond(node) => {
                self.expr(&node.expr)?;
                let vouched = vouched(&node.expr);
                let then = self.assuming(&vouched.if_true, |names| names.nodes(&node.true_body))?;
                let otherwise = self.assuming(&vouched.if_false, |names| names.nodes(&node.false_body))?;
                // What only one branch sets may be missing after it, and is then looked up in the recipient; unless
                // the other branch is for those who have it.
                for name in then.iter().chain(&vouched.if_true).copied() {
                    match (then.contains(&name), otherwise.contains(&name)) {
                        (true, true) => self.declare(name),
                        (false, true) => self.assure(name),
                        (true, false) if vouched.if_false.contains(&name) => self.assure(name),
                        (_, false) => {}
                    }
                }
                Ok(())
            }
            Stmt::WithBlock(node) => self
                .scoped(|names| {
                    for (target, value) in &node.assignments {
                        names.expr(value)?;
                        names.set(target)?;
                    }
                    names.nodes(&node.body)
                })
                .map(drop),
            Stmt::Set(node) => {
                self.expr(&node.expr)?;
                self.set(&node.target)
            }
            Stmt::SetBlock(node) => {
                self.maybe(node.filter.as_ref())?;
                self.nodes(&node.body)?;
                self.set(&node.target)
            }
            Stmt::FilterBlock(node) => {
                self.expr(&node.filter)?;
                self.nodes(&node.body)
            }
            Stmt::Macro(node) => {
                if self.scopes.iter().flatten().count() >= MAX_VARIABLES {
                    return self.refuse(node.span().start_offset, format_args!("more than {MAX_VARIABLES} names set"));
                }
                self.declare(node.name);
                self.macro_body(node)
            }
            Stmt::CallBlock(node) => {
                self.call(&node.call, node.call_expr_span.start_offset)?;
                self.macro_body(&node.macro_decl)
            }
            Stmt::AutoEscape(node) => {
                self.refuse(node.span().start_offset, "`autoescape` is not allowed; values are always escaped")
            }
            Stmt::Do(node) => self.refuse(node.span().start_offset, "`do` is not allowed; it writes nothing"),
        }
    }

    fn literal(&self, text: &str, offset: u32) -> Result<(), TemplateError> {
        if self.part != Part::Subject {
            return Ok(());
        }
        match text.find(breaks_a_line) {
            Some(at) => self.refuse(
                offset.saturating_add(u32::try_from(at).unwrap_or(0)),
                "the subject must be one line without control characters",
            ),
            None => Ok(()),
        }
    }

    fn macro_body(&mut self, node: &Macro<'s>) -> Result<(), TemplateError> {
        self.scoped(|names| {
            names.declare("caller");
            node.args.iter().try_for_each(|argument| names.set(argument))?;
            node.defaults.iter().try_for_each(|value| names.expr(value))?;
            names.nodes(&node.body)
        })
        .map(drop)
    }

    fn expr(&mut self, expr: &Expr<'s>) -> Result<(), TemplateError> {
        match expr {
            Expr::Const(_) => Ok(()),
            Expr::Var(var) => self.used(var.id, expr),
            Expr::UnaryOp(node) => self.expr(&node.expr),
            Expr::BinOp(node) => match node.op {
                BinOpKind::ScAnd => {
                    self.expr(&node.left)?;
                    self.assuming(&vouched(&node.left).if_true, |names| names.expr(&node.right)).map(drop)
                }
                BinOpKind::ScOr => {
                    self.expr(&node.left)?;
                    self.assuming(&vouched(&node.left).if_false, |names| names.expr(&node.right)).map(drop)
                }
                _ => {
                    self.expr(&node.left)?;
                    self.expr(&node.right)
                }
            },
            Expr::Compare(node) => {
                self.expr(&node.expr)?;
                node.ops.iter().try_for_each(|op| self.expr(&op.expr))
            }
            Expr::IfExpr(node) => {
                self.expr(&node.test_expr)?;
                let vouched = vouched(&node.test_expr);
                self.assuming(&vouched.if_true, |names| names.expr(&node.true_expr))?;
                self.assuming(&vouched.if_false, |names| names.maybe(node.false_expr.as_ref())).map(drop)
            }
            Expr::Filter(node) => self.filter(node, expr),
            Expr::Test(node) => {
                self.known("test", node.name, &TESTS, expr)?;
                if may_ask(node.name) { self.asked(&node.expr) } else { self.expr(&node.expr) }?;
                self.arguments(&node.args)
            }
            Expr::GetAttr(node) => match &node.expr {
                Expr::Var(var) if var.id == "loop" && self.is_set("loop") => {
                    self.known("field of `loop`", node.name, &LOOP_FIELDS, expr)
                }
                _ => self.refuse(
                    offset_of(expr),
                    format_args!("`.{}`: a recipient's fields are plain text and have no attributes", node.name),
                ),
            },
            Expr::GetItem(node) => {
                if let Expr::Const(key) = &node.subscript_expr
                    && key.value.as_str().is_some_and(|name| name.starts_with('_'))
                {
                    return self.refuse(offset_of(expr), "a recipient's fields are plain text and have no attributes");
                }
                self.expr(&node.expr)?;
                self.expr(&node.subscript_expr)
            }
            Expr::Slice(node) => {
                self.expr(&node.expr)?;
                [&node.start, &node.stop, &node.step].into_iter().try_for_each(|bound| self.maybe(bound.as_ref()))
            }
            Expr::Call(node) => self.call(node, offset_of(expr)),
            Expr::List(node) => node.items.iter().try_for_each(|item| self.expr(item)),
            Expr::Tuple(node) => node.items.iter().try_for_each(|item| self.expr(item)),
            Expr::Map(node) => node.keys.iter().chain(&node.values).try_for_each(|item| self.expr(item)),
        }
    }

    /// A variable whose value is used: who has none fails.
    fn used(&mut self, name: &'s str, expr: &Expr<'s>) -> Result<(), TemplateError> {
        self.variable(name, expr)?;
        let is_safe = self.is_set(name) || self.assured.contains(&name);
        if !is_safe && !self.needed.iter().any(|(known, _)| *known == name) {
            self.needed.push((name, offset_of(expr)));
        }
        Ok(())
    }

    /// An expression that may be a variable without a value.
    fn asked(&mut self, expr: &Expr<'s>) -> Result<(), TemplateError> {
        match expr {
            Expr::Var(var) => self.variable(var.id, expr),
            expr => self.expr(expr),
        }
    }

    fn variable(&mut self, name: &'s str, expr: &Expr<'s>) -> Result<(), TemplateError> {
        if self.is_set(name) || self.met.contains(&name) {
            return Ok(());
        }
        if name == "loop" {
            return self.refuse(offset_of(expr), "`loop` is there inside a `for` only");
        }
        if name == RANGE {
            return self.refuse(offset_of(expr), "`range` is a function: `range(3)`");
        }
        if name.starts_with("__") {
            return self.refuse(offset_of(expr), format_args!("`{name}` is not the name of a field"));
        }
        if self.met.len() >= MAX_VARIABLES {
            return self.refuse(offset_of(expr), format_args!("more than {MAX_VARIABLES} different variables"));
        }
        self.met.push(name);
        Ok(())
    }

    fn filter(&mut self, node: &Filter<'s>, expr: &Expr<'s>) -> Result<(), TemplateError> {
        if node.name == "safe" {
            return self
                .refuse(offset_of(expr), "`safe` is not allowed: a recipient's value would enter the page as HTML");
        }
        self.known("filter", node.name, &FILTERS, expr)?;
        match &node.expr {
            Some(value) if matches!(node.name, "default" | "d") => self.asked(value)?,
            value => self.maybe(value.as_ref())?,
        }
        self.arguments(&node.args)
    }

    fn call(&mut self, node: &Call<'s>, offset: u32) -> Result<(), TemplateError> {
        match &node.expr {
            Expr::Var(var) if self.is_set(var.id) => {}
            Expr::Var(var) if var.id == RANGE => {
                if let Some(fault) = range::fault(&node.args) {
                    return self.refuse(offset, fault);
                }
            }
            Expr::Var(var) => {
                let set = self.scopes.iter().flatten().copied();
                let near = suggestion(nearest(var.id, set.chain([RANGE])));
                return self.refuse(offset, format_args!("unknown function `{}`{near}", var.id));
            }
            Expr::GetAttr(attr) if matches!(attr.name, "cycle" | "changed") => self.expr(&node.expr)?,
            Expr::GetAttr(attr) => {
                return self.refuse(offset, format_args!("`.{}()`: values have no methods; use a filter", attr.name));
            }
            _ => return self.refuse(offset, "only macros and `range` can be called"),
        }
        self.arguments(&node.args)
    }

    fn arguments(&mut self, arguments: &[CallArg<'s>]) -> Result<(), TemplateError> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) | CallArg::PosSplat(value) | CallArg::KwargSplat(value) => {
                self.expr(value)
            }
        })
    }

    fn maybe(&mut self, expr: Option<&Expr<'s>>) -> Result<(), TemplateError> {
        expr.map_or(Ok(()), |expr| self.expr(expr))
    }

    fn known(&self, kind: &str, name: &str, known: &[&str], expr: &Expr<'s>) -> Result<(), TemplateError> {
        if known.contains(&name) {
            return Ok(());
        }
        let near = suggestion(nearest(name, known.iter().copied()));
        self.refuse(offset_of(expr), format_args!("unknown {kind} `{name}`{near}"))
    }

    /// Declares the names an assignment sets.
    fn set(&mut self, target: &Expr<'s>) -> Result<(), TemplateError> {
        match target {
            Expr::Var(var) if self.scopes.iter().flatten().count() >= MAX_VARIABLES => {
                self.refuse(offset_of(target), format_args!("`{}` is more than {MAX_VARIABLES} names set", var.id))
            }
            Expr::Var(var) => {
                self.declare(var.id);
                Ok(())
            }
            Expr::List(list) => list.items.iter().try_for_each(|item| self.set(item)),
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.set(item)),
            other => self.refuse(offset_of(other), "only a plain name can be set"),
        }
    }

    fn declare(&mut self, name: &'s str) {
        if let Some(scope) = self.scopes.last_mut()
            && !scope.contains(&name)
        {
            scope.push(name);
        }
    }

    fn assure(&mut self, name: &'s str) {
        if !self.assured.contains(&name) {
            self.assured.push(name);
        }
    }

    fn is_set(&self, name: &str) -> bool {
        self.scopes.iter().flatten().any(|set| *set == name)
    }

    /// Runs `walk` in a scope of its own and hands back the names it set.
    fn scoped(
        &mut self,
        walk: impl FnOnce(&mut Self) -> Result<(), TemplateError>,
    ) -> Result<Vec<&'s str>, TemplateError> {
        self.assuming(&[], walk)
    }

    /// The same where these variables have a value.
    fn assuming(
        &mut self,
        assured: &[&'s str],
        walk: impl FnOnce(&mut Self) -> Result<(), TemplateError>,
    ) -> Result<Vec<&'s str>, TemplateError> {
        let before = self.assured.len();
        self.assured.extend_from_slice(assured);
        self.scopes.push(Vec::new());
        walk(self)?;
        self.assured.truncate(before);
        Ok(self.scopes.pop().unwrap_or_default())
    }

    fn refuse(&self, offset: u32, message: impl Display) -> Result<(), TemplateError> {
        Err(TemplateError::at(self.part.name(), self.source, offset as usize, message))
    }
}

fn offset_of(expr: &Expr<'_>) -> u32 {
    expr.span().start_offset
}

fn suggestion(near: Option<&str>) -> String {
    near.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}
