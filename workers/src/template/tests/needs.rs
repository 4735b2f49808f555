//! Which variables a recipient must have a value for.

use super::*;
use crate::template::engine::TESTS;

fn needs(source: &TemplateSource) -> Vec<(String, &'static str, usize)> {
    let (_, template) = Template::compile(source).unwrap();
    template.needs().iter().map(|need| (need.variable.clone(), need.part, need.line)).collect()
}

/// The variables a text needs.
fn needed(body: &str) -> Vec<String> {
    needs(&text(body)).into_iter().map(|(variable, _, _)| variable).collect()
}

#[test]
fn a_need_has_the_part_and_line_it_first_stands_in() {
    let source = email("{{ b }}", Some("<p>\n<a href=\"{{ a }}\">{{ b }}</a></p>"), Some("{{ a }}\n\n{{ c }}"));
    let expected = [("a", "html", 2), ("b", "subject", 1), ("c", "text", 3)];
    assert_eq!(needs(&source), expected.map(|(name, part, line)| (name.to_owned(), part, line)));
}

#[test]
fn a_variable_with_a_default_is_not_needed() {
    let mut source = text("{{ a }} {{ b|default('x') }} {{ c|d }} {{ (d|default('x'))|upper }}");
    assert_eq!(needed("{{ a }} {{ b|default('x') }} {{ c|d }} {{ (d|default('x'))|upper }}"), ["a"]);
    source.defaults.insert("a".to_owned(), String::new());
    assert_eq!(needs(&source), []);
    assert_eq!(needed("{{ a|upper|default('x') }} {{ b|default(c) }}"), ["a", "c"]);
}

#[test]
fn a_variable_that_is_asked_for_first_is_not_needed() {
    for body in [
        "x{% if a is defined %}{{ a }}{% endif %}",
        "x{% if a is not undefined %}{{ a }}{% endif %}",
        "x{% if not a is defined %}-{% else %}{{ a }}{% endif %}",
        "x{% if a is defined and a %}{{ a }}{% endif %}",
        "x{% if a is undefined or a == 'b' %}-{% else %}{{ a }}{% endif %}",
        "x{% if a is string %}{{ a }}{% endif %}",
        "{{ a if a is defined else '-' }}",
        "{{ a is defined and a|upper == 'B' }}",
        "x{% if a is not defined %}{% set a = '-' %}{% endif %}{{ a }}",
        "x{% if a is defined %}{% else %}{% set a = '-' %}{% endif %}{{ a }}",
        "{% set a = a|default('-') %}{{ a }}",
        "{% for a in range(2) %}{{ a }}{% endfor %}",
        "{% with a = 1 %}{{ a }}{% endwith %}",
        "{% macro m(a) %}{{ a }}{% endmacro %}{{ m('-') }}",
    ] {
        assert_eq!(needed(body), [""; 0], "{body}");
        let (_, template) = Template::compile(&text(body)).unwrap();
        assert!(template.render(&Data::default()).is_ok(), "{body}");
    }
}

#[test]
fn a_variable_that_is_not_asked_for_everywhere_is_needed() {
    for body in [
        "{% if a %}x{% endif %}",
        "x{% if a is defined %}{{ a }}{% endif %}{{ a }}",
        "x{% if a is defined or b is defined %}{{ a }}{% endif %}",
        "x{% if a is not defined %}{{ a }}{% endif %}",
        "{{ a or 'x' }}",
        "x{% if a == 'b' %}-{% endif %}",
        "{{ '-' if a is defined else a }}",
        "{% for i in a %}x{% endfor %}",
        "x{% if b is defined and b == 'c' %}{% set a = '-' %}{% endif %}{{ a }}",
        "{% for i in range(2) %}{% set a = '-' %}{% endfor %}{{ a }}",
    ] {
        assert_eq!(needed(body), ["a"], "{body}");
    }
}

#[test]
fn a_test_is_asked_of_a_missing_value_exactly_where_that_works() {
    for test in TESTS {
        let arguments = match test {
            "divisibleby" => "(2)",
            "in" => "(['x'])",
            "endingwith" | "eq" | "equalto" | "ge" | "greaterthan" | "gt" | "le" | "lessthan" | "lt" | "ne"
            | "startingwith" => "('x')",
            _ => "",
        };
        let (_, template) = Template::compile(&text(&format!("x{{{{ a is {test}{arguments} }}}}"))).unwrap();
        let rendered = template.render_whole(&Data::default());
        assert_eq!(template.needs().is_empty(), rendered.is_ok(), "{test}: {rendered:?}");
        // Whoever passes the test has a value, or the template still needs one.
        let body = format!("x{{% if a is {test}{arguments} %}}{{{{ a }}}}{{% endif %}}");
        let (_, template) = Template::compile(&text(&body)).unwrap();
        assert!(!template.needs().is_empty() || template.render(&Data::default()).is_ok(), "{test}");
    }
}

#[test]
fn the_variable_that_is_named_as_missing_is_one_that_is_needed() {
    let (_, template) = Template::compile(&text("{{ a|default('-') ~ b }}")).unwrap();
    let missing = RenderError::Missing { name: "b".to_owned() };
    assert_eq!(template.render(&Data::default()), Err(missing));
}
