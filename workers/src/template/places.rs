//! Where in the page each value stands, and whether it may stand there.
//!
//! Walks the HTML part's nodes in reading order, feeding literal text to an HTML state machine ([`Place`]). Escaping
//! makes a value harmless in text and in quoted attributes; elsewhere it is refused, and where escaping is not
//! enough (the start of a link, a `style`) the expression gets a filter around it that checks the value.

use minijinja::machinery::ast::{ForLoop, IfCond, Stmt};

use super::{error::TemplateError, escape::Guard, html::Place};

/// An expression that needs a guard: its byte range in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Guarded {
    start: usize,
    end: usize,
    guard: Guard,
}

/// Checks the places of all values of the page `nodes`, and gives back the source with guards around those that need
/// one. Lines stay as they are.
pub(super) fn guarded_source(part: &str, source: &str, nodes: &[Stmt<'_>]) -> Result<String, TemplateError> {
    let mut walk = Walk { part, source, guarded: Vec::new() };
    walk.nodes(nodes, Place::Text)?;
    let mut out = String::with_capacity(source.len());
    let mut from = 0;
    for Guarded { start, end, guard } in walk.guarded {
        // Nodes come in reading order and expressions do not overlap, so `from <= start <= end`.
        let (Some(before), Some(expr)) = (source.get(from..start), source.get(start..end)) else { continue };
        out.push_str(before);
        out.push('(');
        out.push_str(expr);
        out.push_str(")|");
        out.push_str(guard.filter());
        from = end;
    }
    out.push_str(source.get(from..).unwrap_or_default());
    Ok(out)
}

struct Walk<'w> {
    part: &'w str,
    source: &'w str,
    guarded: Vec<Guarded>,
}

impl Walk<'_> {
    fn nodes(&mut self, nodes: &[Stmt<'_>], start: Place) -> Result<Place, TemplateError> {
        nodes.iter().try_fold(start, |place, node| self.node(node, place))
    }

    fn node(&mut self, node: &Stmt<'_>, mut place: Place) -> Result<Place, TemplateError> {
        match node {
            Stmt::EmitRaw(raw) => {
                let offset = raw.span().start_offset;
                place.feed(raw.raw).map_err(|(at, message)| self.error(offset as usize + at, message))?;
                Ok(place)
            }
            Stmt::EmitExpr(emit) => {
                let span = emit.span();
                let (start, end) = (span.start_offset as usize, span.end_offset as usize);
                if let Some(guard) = place.value().map_err(|message| self.error(start, &message))? {
                    self.guarded.push(Guarded { start, end, guard });
                }
                Ok(place)
            }
            Stmt::IfCond(node) => self.branches(node, node.span().start_offset as usize, &place),
            Stmt::ForLoop(node) => self.repeated(node, node.span().start_offset as usize, &place),
            Stmt::WithBlock(node) => self.nodes(&node.body, place),
            Stmt::SetBlock(node) => {
                self.apart(&node.body, node.span().start_offset as usize)?;
                Ok(place)
            }
            Stmt::Macro(node) => {
                self.apart(&node.body, node.span().start_offset as usize)?;
                Ok(place)
            }
            Stmt::FilterBlock(node) => self.inserted(&node.body, node.span().start_offset as usize, place),
            Stmt::CallBlock(node) => self.inserted(&node.macro_decl.body, node.span().start_offset as usize, place),
            // Refused by name before, or without output.
            Stmt::Template(_) | Stmt::Set(_) | Stmt::AutoEscape(_) | Stmt::Do(_) => Ok(place),
        }
    }

    fn branches(&mut self, node: &IfCond<'_>, at: usize, place: &Place) -> Result<Place, TemplateError> {
        let then = self.nodes(&node.true_body, place.clone())?;
        let otherwise = self.nodes(&node.false_body, place.clone())?;
        then.join(otherwise).ok_or_else(|| self.error(at, DIFFERENT_ENDS))
    }

    fn repeated(&mut self, node: &ForLoop<'_>, at: usize, place: &Place) -> Result<Place, TemplateError> {
        let start = place.clone().again();
        let end = self.nodes(&node.body, start.clone())?;
        let looped = end.join(start).ok_or_else(|| self.error(at, DIFFERENT_ENDS))?;
        let otherwise = self.nodes(&node.else_body, place.clone())?;
        looped.join(otherwise).ok_or_else(|| self.error(at, DIFFERENT_ENDS))
    }

    /// A body whose output is kept for later: it must be whole by itself.
    fn apart(&mut self, body: &[Stmt<'_>], at: usize) -> Result<(), TemplateError> {
        if self.nodes(body, Place::Text)? == Place::Text {
            return Ok(());
        }
        Err(self.error(at, "the body of this block begins or ends inside a tag; it must be whole by itself"))
    }

    /// A body whose output is changed and then written here.
    fn inserted(&mut self, body: &[Stmt<'_>], at: usize, place: Place) -> Result<Place, TemplateError> {
        self.apart(body, at)?;
        if place == Place::Text {
            return Ok(place);
        }
        Err(self.error(at, "this block may stand between tags only"))
    }

    fn error(&self, offset: usize, message: &str) -> TemplateError {
        TemplateError::at(self.part, self.source, offset, message)
    }
}

const DIFFERENT_ENDS: &str = "the ways through this block end in different places of the page (one inside a tag, a \
                              comment or quotes, another outside); make each whole by itself";
