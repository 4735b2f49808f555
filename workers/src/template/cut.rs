//! Cuts a part into its skeleton and its slots.
//!
//! Only the top level is cut: literal text is fixed, a `{{ … }}` or a whole block is a slot. What a block sets stays
//! inside it, so each slot renders alone as it would in its place; where that is not so (`set`, `macro`, an `if` that
//! sets something), the rest of the part from there is one slot. What no recipient can change is rendered once, here,
//! and is fixed text.

use std::{collections::HashMap, sync::Arc};

use minijinja::{
    Environment,
    machinery::{
        Span,
        ast::{Expr, Stmt},
        parse,
    },
    syntax::SyntaxConfig,
    value::Value,
};

use super::{
    Need, Part,
    budget::{MAX_FUEL, MAX_OUTPUT_BYTES, MAX_SLOTS, MAX_SOURCE_BYTES, MAX_VARIABLES},
    engine::{Root, render_error, syntax_error},
    error::{RenderError, TemplateError, line_of},
    escape::{Escape, Guard},
    names::Names,
    nesting,
    places::guarded_source,
};
use crate::message::{Piece, Skeleton};

/// How one slot is filled.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Filler {
    /// With a variable, escaped: no template runs.
    Variable { variable: usize, escape: Escape, guard: Option<Guard> },
    /// With what a template of the environment writes.
    Template { name: String, escape: Escape, variables: Vec<usize> },
}

/// A part, rendered whole by the template of its name.
#[derive(Debug)]
pub(super) struct WholePart {
    pub(super) part: Part,
    /// In reading order, each once.
    pub(super) variables: Vec<usize>,
}

/// Collects the slots and variables of all parts of a template.
pub(super) struct Cutter {
    pub(super) env: Environment<'static>,
    pub(super) fillers: Vec<Filler>,
    /// For each slot, how often it stands in the message.
    pub(super) places: Vec<usize>,
    /// Bytes of fixed text in all parts.
    pub(super) fixed_bytes: usize,
    /// In order of appearance.
    pub(super) variables: Vec<String>,
    pub(super) parts: Vec<WholePart>,
    /// Variables a recipient fails without, each once, where that first is so.
    pub(super) needs: Vec<Need>,
    by_name: HashMap<String, usize>,
    /// Slots by what fills them: for a template, its source.
    known: HashMap<(Escape, Option<Guard>, String), u16>,
    fuel: u64,
}

impl Cutter {
    pub(super) fn new(env: Environment<'static>) -> Self {
        Self {
            env,
            fillers: Vec::new(),
            places: Vec::new(),
            fixed_bytes: 0,
            variables: Vec::new(),
            parts: Vec::new(),
            needs: Vec::new(),
            by_name: HashMap::new(),
            known: HashMap::new(),
            fuel: 0,
        }
    }

    /// Checks and cuts a part.
    pub(super) fn cut(&mut self, part: Part, source: &str) -> Result<Skeleton, TemplateError> {
        if source.len() > MAX_SOURCE_BYTES {
            return Err(TemplateError::in_part(part.name(), format_args!("longer than {MAX_SOURCE_BYTES} bytes")));
        }
        nesting::check(part.name(), source)?;
        if part != Part::Html {
            return self.cut_checked(part, source);
        }
        // Names first: they are what an author gets wrong most often.
        let tree = parsed(part, source)?;
        Names::new(part, source).check(&tree)?;
        let guarded = guarded_source(part.name(), source, children(&tree))?;
        self.cut_checked(part, &guarded)
    }

    fn cut_checked(&mut self, part: Part, source: &str) -> Result<Skeleton, TemplateError> {
        let tree = parsed(part, source)?;
        let nodes = children(&tree);
        let mut names = Names::new(part, source);
        let mut pieces = Pieces::default();
        let mut whole = Vec::new();
        for (at, node) in nodes.iter().enumerate() {
            let mut met = names.check(node)?;
            if let Stmt::EmitRaw(raw) = node {
                self.fix(part, &mut pieces, raw.raw)?;
                continue;
            }
            let span = span_of(node);
            let (start, end) = (span.start_offset as usize, span.end_offset as usize);
            let leaks = leaks(node);
            if leaks {
                for later in nodes.iter().skip(at + 1) {
                    met.extend(names.check(later)?);
                }
            }
            let mut variables = Vec::new();
            self.intern(part, &met, &mut variables)?;
            self.intern(part, &met, &mut whole)?;
            let place = Place { part, source, start };
            match (node, plain_variable(node), variables.as_slice()) {
                (_, Some((name, guard)), [variable]) => {
                    self.variable_slot(&place, &mut pieces, name, guard, *variable)?;
                }
                (_, _, _) if leaks => {
                    let rest = source.get(start..).unwrap_or_default();
                    self.template_slot(&place, &mut pieces, format!("{{% {rest}"), variables)?;
                    break;
                }
                (Stmt::EmitExpr(_), _, _) => {
                    let text = source.get(start..end).unwrap_or_default();
                    self.template_slot(&place, &mut pieces, format!("{{{{ {text} }}}}"), variables)?;
                }
                _ => {
                    let text = source.get(start..end).unwrap_or_default();
                    self.template_slot(&place, &mut pieces, format!("{{% {text} %}}"), variables)?;
                }
            }
        }
        for (variable, offset) in names.needed() {
            if !self.needs.iter().any(|need| need.variable == variable) {
                let line = line_of(source, offset as usize);
                self.needs.push(Need { variable: variable.to_owned(), part: part.name(), line });
            }
        }
        self.add_template(part, part.name().to_owned(), source.to_owned())?;
        self.parts.push(WholePart { part, variables: whole });
        Ok(pieces.finish())
    }

    /// Appends literal text.
    fn fix(&mut self, part: Part, pieces: &mut Pieces, text: &str) -> Result<(), TemplateError> {
        self.fixed_bytes += text.len();
        if self.fixed_bytes > MAX_OUTPUT_BYTES {
            return Err(TemplateError::in_part(
                part.name(),
                format_args!("the message is longer than {MAX_OUTPUT_BYTES} bytes before any value is filled in"),
            ));
        }
        pieces.fixed.push_str(text);
        Ok(())
    }

    fn variable_slot(
        &mut self,
        place: &Place<'_>,
        pieces: &mut Pieces,
        name: &str,
        guard: Option<Guard>,
        variable: usize,
    ) -> Result<(), TemplateError> {
        let escape = place.part.escape();
        let filler = Filler::Variable { variable, escape, guard };
        self.slot(place, pieces, (escape, guard, name.to_owned()), |_, _| Ok(filler))
    }

    fn template_slot(
        &mut self,
        place: &Place<'_>,
        pieces: &mut Pieces,
        source: String,
        variables: Vec<usize>,
    ) -> Result<(), TemplateError> {
        let escape = place.part.escape();
        if variables.is_empty() {
            let mut fixed = String::new();
            escape.push_rendered(&self.constant(place, source)?, &mut fixed);
            return self.fix(place.part, pieces, &fixed);
        }
        let name = format!("{}:{}", place.part.name(), self.fillers.len());
        self.slot(place, pieces, (escape, None, source), |cutter, source| {
            cutter.add_template(place.part, name.clone(), source.to_owned())?;
            Ok(Filler::Template { name, escape, variables })
        })
    }

    /// Appends the slot of `key`, made by `make` when the message has none like it yet.
    fn slot(
        &mut self,
        place: &Place<'_>,
        pieces: &mut Pieces,
        key: (Escape, Option<Guard>, String),
        make: impl FnOnce(&mut Self, &str) -> Result<Filler, TemplateError>,
    ) -> Result<(), TemplateError> {
        let number = match self.known.get(&key) {
            Some(number) => *number,
            None => {
                let number = u16::try_from(self.fillers.len()).unwrap_or(u16::MAX);
                if usize::from(number) >= MAX_SLOTS {
                    return Err(place.refuse(format_args!("more than {MAX_SLOTS} different slots")));
                }
                let filler = make(self, &key.2)?;
                self.fillers.push(filler);
                self.places.push(0);
                self.known.insert(key, number);
                number
            }
        };
        if let Some(places) = self.places.get_mut(usize::from(number)) {
            *places += 1;
        }
        pieces.slot(number);
        Ok(())
    }

    /// What a node without variables writes: the same for everybody, so it is rendered now.
    fn constant(&mut self, place: &Place<'_>, source: String) -> Result<String, TemplateError> {
        let name = format!("{}:constant", place.part.name());
        self.add_template(place.part, name.clone(), source)?;
        let nothing = Value::from_object(Root { names: Arc::default(), values: Vec::new() });
        let rendered = self.env.get_template(&name).and_then(|template| {
            let rendered = template.render_captured(nothing)?;
            let fuel = rendered.state().fuel_levels().map_or(0, |(used, _)| used);
            Ok((rendered.into_output(), fuel))
        });
        let (text, fuel) = rendered.map_err(|error| match (render_error(&error, None), error.detail()) {
            // No value of a recipient is in it, so all that is known can be told.
            (failed @ RenderError::Failed(_), Some(detail)) => place.refuse(format_args!("{failed}: {detail}")),
            (failed, _) => place.refuse(failed),
        })?;
        self.env.remove_template(&name);
        // All constants of a message together: a page full of them is as much work as one large one.
        self.fuel = self.fuel.saturating_add(fuel);
        if self.fuel > MAX_FUEL {
            return Err(place.refuse(RenderError::TooMuchWork));
        }
        Ok(text)
    }

    fn add_template(&mut self, part: Part, name: String, source: String) -> Result<(), TemplateError> {
        // The whole part has been parsed, so what is cut out of it parses.
        self.env.add_template_owned(name, source).map_err(|error| TemplateError::in_part(part.name(), error.kind()))
    }

    /// Appends the numbers of `names` to `out`, each once.
    fn intern(&mut self, part: Part, names: &[&str], out: &mut Vec<usize>) -> Result<(), TemplateError> {
        for name in names {
            let number = match self.by_name.get(*name) {
                Some(number) => *number,
                None => {
                    let number = self.variables.len();
                    if number >= MAX_VARIABLES {
                        let message = format_args!("the template has more than {MAX_VARIABLES} different variables");
                        return Err(TemplateError::in_part(part.name(), message));
                    }
                    self.variables.push((*name).to_owned());
                    self.by_name.insert((*name).to_owned(), number);
                    number
                }
            };
            if !out.contains(&number) {
                out.push(number);
            }
        }
        Ok(())
    }
}

/// A node's place, for what is wrong with it.
struct Place<'s> {
    part: Part,
    source: &'s str,
    start: usize,
}

impl Place<'_> {
    fn refuse(&self, message: impl std::fmt::Display) -> TemplateError {
        TemplateError::at(self.part.name(), self.source, self.start, message)
    }
}

/// A skeleton being made.
#[derive(Default)]
struct Pieces {
    done: Vec<Piece>,
    /// Literal text since the last slot.
    fixed: String,
}

impl Pieces {
    fn slot(&mut self, number: u16) {
        self.flush();
        self.done.push(Piece::Slot(number));
    }

    fn finish(mut self) -> Skeleton {
        self.flush();
        Skeleton { pieces: self.done }
    }

    fn flush(&mut self) {
        if !self.fixed.is_empty() {
            self.done.push(Piece::Fixed(std::mem::take(&mut self.fixed).into_boxed_str()));
        }
    }
}

/// The syntax tree of a source.
fn parsed<'s>(part: Part, source: &'s str) -> Result<Stmt<'s>, TemplateError> {
    parse(source, part.name(), SyntaxConfig::default()).map_err(|error| syntax_error(part.name(), source, &error))
}

/// The top level of a syntax tree.
fn children<'t, 's>(tree: &'t Stmt<'s>) -> &'t [Stmt<'s>] {
    match tree {
        Stmt::Template(template) => &template.children,
        node => std::slice::from_ref(node),
    }
}

/// Whether what a node sets is there for the nodes after it. `for`, `with`, `macro` and `call` keep it inside.
fn leaks(node: &Stmt<'_>) -> bool {
    match node {
        Stmt::Set(_) | Stmt::SetBlock(_) | Stmt::Macro(_) => true,
        Stmt::IfCond(node) => node.true_body.iter().chain(&node.false_body).any(leaks),
        Stmt::ForLoop(node) => node.else_body.iter().any(leaks),
        Stmt::FilterBlock(node) => node.body.iter().any(leaks),
        Stmt::Template(_)
        | Stmt::EmitExpr(_)
        | Stmt::EmitRaw(_)
        | Stmt::WithBlock(_)
        | Stmt::AutoEscape(_)
        | Stmt::CallBlock(_)
        | Stmt::Do(_) => false,
    }
}

/// The variable of `{{ name }}`, with the guard of `{{ name|url }}`.
fn plain_variable<'s>(node: &Stmt<'s>) -> Option<(&'s str, Option<Guard>)> {
    let Stmt::EmitExpr(emit) = node else { return None };
    match &emit.expr {
        Expr::Var(var) => Some((var.id, None)),
        Expr::Filter(filter) if filter.args.is_empty() => match (&filter.expr, Guard::of_filter(filter.name)) {
            (Some(Expr::Var(var)), Some(guard)) => Some((var.id, Some(guard))),
            _ => None,
        },
        _ => None,
    }
}

/// The expression of a `{{ … }}` or, of a block, what stands between its first `{%` and its last `%}`.
fn span_of(node: &Stmt<'_>) -> Span {
    match node {
        Stmt::Template(node) => node.span(),
        Stmt::EmitExpr(node) => node.span(),
        Stmt::EmitRaw(node) => node.span(),
        Stmt::ForLoop(node) => node.span(),
        Stmt::IfCond(node) => node.span(),
        Stmt::WithBlock(node) => node.span(),
        Stmt::Set(node) => node.span(),
        Stmt::SetBlock(node) => node.span(),
        Stmt::AutoEscape(node) => node.span(),
        Stmt::FilterBlock(node) => node.span(),
        Stmt::Macro(node) => node.span(),
        Stmt::CallBlock(node) => node.span(),
        Stmt::Do(node) => node.span(),
    }
}
