//! Splicing the slots into the skeleton is the same as rendering the part whole, for any template and any data.

use proptest::prelude::*;

use super::*;

/// Fields templates may use. The last is never there.
const NAMES: [&str; 5] = ["name", "city", "code", "note", "gone"];

/// Values that mean something to templates, HTML, headers, or nobody.
const VALUES: [&str; 11] = [
    "Ada",
    "{{ 7*7 }}",
    "{% raw %}",
    "{# x #}",
    "<script>alert(1)</script>",
    "a\"b'c&d",
    "😀 Zoë",
    "a\r\nBcc: b",
    " \t spaced ",
    "}}%}",
    "0",
];

const LITERALS: [&str; 6] = [
    "\n",
    " \n  ",
    "{% raw %}{{ x }}{% endraw %}",
    "{%- raw -%} {% if %} {%- endraw +%}",
    "{# a comment {{ x }} #}",
    "{#- a comment -#}",
];

const FILTERS: [&str; 14] = [
    "upper",
    "lower",
    "title",
    "trim",
    "length",
    "e",
    "urlencode",
    "reverse",
    "string",
    "capitalize",
    "default('?')",
    "replace('a', '<b>')",
    "split(' ')|join('&')",
    "url",
];

// Strategies are boxed: a debug build keeps every unboxed one of a union on the stack at once.

fn one_of(texts: &'static [&'static str]) -> BoxedStrategy<String> {
    prop::sample::select(texts).prop_map(str::to_owned).boxed()
}

fn name() -> BoxedStrategy<String> {
    // `gone` makes most templates fail, so it is rare.
    prop_oneof![20 => one_of(&NAMES[..4]), 1 => one_of(&NAMES[4..])].boxed()
}

fn value() -> BoxedStrategy<String> {
    prop_oneof![1 => one_of(&[""]), 4 => one_of(&VALUES), 4 => "[ -~é\n]{0,12}".boxed()].boxed()
}

fn literal() -> BoxedStrategy<String> {
    prop_oneof!["[ a-c>&\"'}%é.]{0,8}".boxed(), one_of(&LITERALS)].boxed()
}

/// A mark that may trim the whitespace outside a tag.
fn trim() -> BoxedStrategy<String> {
    one_of(&["", "", "", "-", "+"])
}

fn operand() -> BoxedStrategy<String> {
    prop_oneof![4 => name(), 3 => one_of(&["\"<é>\"", "'{{ }}'", "'42'"])].boxed()
}

fn expr() -> BoxedStrategy<String> {
    let filtered = (operand(), one_of(&FILTERS)).prop_map(|(a, f)| format!("{a}|{f}")).boxed();
    let shape = one_of(&["A ~ B", "A if A == B else B|upper", "A in B|string", "(A)", "{'k': A}['k']", "A or B"]);
    let shaped = (shape, operand(), operand()).prop_map(|(s, a, b)| s.replace('A', &a).replace('B', &b)).boxed();
    prop_oneof![4 => operand(), 3 => filtered, 6 => shaped].boxed()
}

fn emit() -> BoxedStrategy<String> {
    (trim(), expr(), trim()).prop_map(|(l, e, r)| format!("{{{{{l} {e} {r}}}}}")).boxed()
}

/// Blocks, with `E` and `F` for expressions, `N` for a name, `X` and `Y` for what stands inside, and `<` and `>` for
/// the ends of a tag.
const BLOCKS: [&str; 10] = [
    "< if (E) >X< else >Y< endif >",
    "< if (E) >X< elif (F) >Y< endif >",
    "< for i in N|split(' ') >[=loop.index=][=i=]X< endfor >",
    "< for i in N|list if i != 'a' >X[=i=]< else >Y< endfor >",
    "< with city = E >X< endwith >Y",
    "< set city = E >X",
    "< if name >< set city = E >< endif >X",
    "< set note >X< endset >[=note=]Y",
    "< macro m(name='x') >X< endmacro >[=m(city)=]Y[=m()=]",
    "< filter upper >X< endfilter >",
];

fn block(inner: BoxedStrategy<String>) -> BoxedStrategy<String> {
    let body = prop::collection::vec(inner, 0..5).prop_map(|nodes| nodes.concat()).boxed();
    let trims = prop::collection::vec(trim(), 6);
    (one_of(&BLOCKS), expr(), expr(), name(), body.clone(), body, trims)
        .prop_map(|(block, e, f, n, x, y, trims)| {
            let mut trims = trims.iter().cycle();
            let mut trim = || trims.next().map_or("", String::as_str);
            let mut out = String::new();
            for c in block.replace("[=", "{{ ").replace("=]", " }}").chars() {
                match c {
                    'E' => out.push_str(&e),
                    'F' => out.push_str(&f),
                    'N' => out.push_str(&n),
                    'X' => out.push_str(&x),
                    'Y' => out.push_str(&y),
                    '<' => out.extend(["{%", trim()]),
                    '>' => out.extend([trim(), "%}"]),
                    c => out.push(c),
                }
            }
            out
        })
        .boxed()
}

fn template() -> BoxedStrategy<String> {
    prop_oneof![literal(), emit()]
        .prop_recursive(3, 24, 5, |inner| {
            let several = prop::collection::vec(inner.clone(), 0..5).prop_map(|nodes| nodes.concat()).boxed();
            prop_oneof![several, block(inner.boxed())].boxed()
        })
        .boxed()
}

/// The same template in text, in an attribute of a page, and between its tags.
fn page_of(template: &str, link: &str) -> String {
    format!(
        "<p title=\"{{{{ name }}}}\" style=\"color: {{{{ code }}}}\">{template}</p>\n\
         <a href=\"{{{{ {link} }}}}/x\">{{{{ name }}}}</a>{template}"
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn splicing_is_rendering_whole(
        template in template(),
        link in expr(),
        values in prop::array::uniform4(value()),
        defaulted in any::<bool>(),
    ) {
        // A part must say something.
        let template = template + ".";
        // A subject is one line, so its literals are.
        let subject = template.replace(['\n', '\r'], " ");
        let mut source = email(&subject, Some(&page_of(&template, &link)), Some(&template));
        if defaulted {
            source.defaults.insert("gone".to_owned(), "found".to_owned());
        }
        let (message, compiled) = match Template::compile(&source) {
            Ok(compiled) => compiled,
            // A constant expression that fails: it would for everybody.
            Err(error) if error.message.contains("could not be rendered") => return Ok(()),
            Err(error) => return Err(TestCaseError::fail(format!("refused: {error}"))),
        };
        let fields: Vec<(&str, &str)> = NAMES.into_iter().zip(values.iter().map(String::as_str)).collect();
        let data = data(&fields);
        match (spliced(&message, &compiled, &data), compiled.render_whole(&data)) {
            (
                Ok(Rendered::Email { subject, html, text }),
                Ok(Rendered::Email { subject: subject2, html: html2, text: text2 }),
            ) => {
                prop_assert_eq!(subject, subject2);
                prop_assert_eq!(html, html2);
                prop_assert_eq!(text, text2);
            }
            (spliced, whole) => prop_assert!(spliced.is_err() && whole.is_err(), "{:?}, {:?}", spliced, whole),
        }
        // Whoever has what the template needs never fails for want of a value.
        let is_needed = |(name, _): &&(&str, &str)| compiled.needs().iter().any(|need| need.variable == *name);
        let mut needed: Vec<(&str, &str)> = fields.iter().filter(is_needed).copied().collect();
        needed.extend(compiled.needs().iter().any(|need| need.variable == "gone").then_some(("gone", "-")));
        let outcome = compiled.render(&self::data(&needed));
        prop_assert!(!matches!(outcome, Err(RenderError::Missing { .. })), "{:?}", outcome);
    }

    #[test]
    fn no_source_breaks_the_compiler(source in "[ -~\né{}%#<>\"'|]{0,80}") {
        // Whatever it answers, it answers.
        drop(Template::compile(&email(&source, Some(&source), Some(&source))));
    }

    #[test]
    fn a_value_never_opens_a_tag_or_leaves_its_quotes(value in any::<String>()) {
        let html = page_for("<p title=\"{{ a }}\">{{ a|upper }}{% if a %}{{ a }}{% endif %}</p>", &[("a", &value)]);
        prop_assert_eq!(html.matches('<').count(), 2);
        prop_assert_eq!(html.matches('>').count(), 2);
        prop_assert_eq!(html.matches('"').count(), 2);
        prop_assert_eq!(html.matches('\'').count(), 0);
    }
}
