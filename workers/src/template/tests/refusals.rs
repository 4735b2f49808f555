//! Templates that are refused, each with a message that names the part, the line and the fault.

use super::*;
use crate::template::budget::{MAX_SLOTS, MAX_SOURCE_BYTES, MAX_VARIABLES};

/// Asserts that the page is refused with a message that contains each of `says`.
fn refused(html: &str, says: &[&str]) {
    let message = refusal(&page(html));
    for said in says {
        assert!(
            message.contains(said),
            "{:?} is refused with {message:?}, without {said:?}",
            &html[..html.len().min(200)]
        );
    }
}

#[test]
fn a_syntax_error_names_its_line() {
    refused("a\nb {{ name", &["html, line 2"]);
    refused("a\n\n{% if x %}", &["html, line 3"]);
    refused("{{ name name }}", &["html, line 1"]);
    refused("\n{% endif %}", &["html, line 2"]);
    refused("{{ }}", &["html, line 1"]);
    let message = refusal(&email("\n{{ a b }}", Some("x"), None));
    assert!(message.starts_with("subject, line "), "{message}");
}

#[test]
fn unknown_names_are_refused_with_the_nearest_known_one() {
    refused("\n{{ name|uper }}", &["html, line 2", "unknown filter `uper`", "did you mean `upper`"]);
    refused("{{ name|xyzzy }}", &["unknown filter `xyzzy`"]);
    refused("{% filter uper %}{% endfilter %}", &["did you mean `upper`"]);
    refused("{% if a is defind %}{% endif %}", &["unknown test `defind`", "did you mean `defined`"]);
    refused("{% for i in rnge(3) %}{% endfor %}", &["unknown function `rnge`", "did you mean `range`"]);
    refused("{% for i in a %}{{ loop.indx }}{% endfor %}", &["did you mean `index`"]);
    refused("{{ loop.index }}", &["html, line 1"]);
}

#[test]
fn templates_cannot_reach_beyond_their_fields() {
    for attack in [
        "{{ contact.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ a['__class__'] }}",
        "{{ a|attr('__class__') }}",
        "{{ a|map('upper') }}",
        "{{ a|selectattr('x') }}",
        "{{ a|safe }}",
        "{{ a|tojson }}",
        "{{ self.__init__ }}",
        "{{ self.block() }}",
        "{{ super() }}",
        "{{ config.items() }}",
        "{{ request.application.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum() }}",
        "{{ debug() }}",
        "{{ dict(a=1) }}",
        "{{ namespace(a=1) }}",
        "{% set a.b = 1 %}",
        "{{ a.upper() }}",
        "{{ a() }}",
        "{{ range }}",
        "{{ (range)(3)() }}",
        "{{ __name__ }}",
        "{% autoescape false %}{{ a }}{% endautoescape %}",
        "{% do range(3) %}",
        "{% include 'a' %}",
        "{% include a %}",
        "{% import 'a' as b %}",
        "{% from 'a' import b %}",
        "{% extends 'a' %}",
        "{% block a %}{% endblock %}",
        "{% call a.b() %}{% endcall %}",
        "{% for i in a %}{{ loop.__class__ }}{% endfor %}",
        "{% for i in a %}{{ loop.previtem.x }}{% endfor %}",
        "{% set loop = 1 %}",
        "{% break %}",
    ] {
        refused(&format!("\n{attack}"), &["html, line 2"]);
        refused(&format!("\n{{% if b %}}{attack}{{% endif %}}"), &["html, line 2"]);
    }
}

#[test]
fn bombs_fail_fast() {
    for bomb in [
        "{% for i in range(10**9) %}x{% endfor %}",
        "{% for i in range(100000) %}x{% endfor %}",
        "{% for i in range(999) %}{% for j in range(999) %}{% for k in range(999) %}x{% endfor %}{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro a() %}{{ b() }}{% endmacro %}{% macro b() %}{{ a() }}{% endmacro %}{{ a() }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        "{{ 'x' * 10**9 }}",
        "{{ [0] * 10**9 }}",
        "{{ range(100000)|list|join('xxxxxxxxxx') }}",
        "{{ 'x'|replace('', 'x' * 100000)|replace('x', 'x' * 100000) }}",
        "{{ 'x'|indent(10**9) }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% set x = 'xxxxxxxxxx' %}{% for i in range(30) %}{% set x = x ~ x %}{% endfor %}{{ x * 10**8 }}",
        &"{% for i in range(20000) %}{% endfor %}".repeat(1_000),
    ] {
        // Nothing in it depends on a recipient, so it goes off where it is made.
        let message = refusal(&text(bomb));
        assert!(message.starts_with("text"), "{bomb}: {message}");
        // Where it depends on one, it goes off for this one only.
        let armed = format!("{{% if a %}}{bomb}{{% endif %}}");
        if let Ok((_, template)) = Template::compile(&text(&armed)) {
            assert!(template.render(&data(&[("a", "x")])).is_err(), "{bomb}");
            assert!(template.render_whole(&data(&[("a", "x")])).is_err(), "{bomb}");
            assert!(template.render(&data(&[("a", "")])).is_ok(), "{bomb}");
        }
    }
}

#[test]
fn deep_nesting_does_not_exhaust_the_stack() {
    // On the stack of a runtime's worker thread or smaller.
    let run = || {
        for source in [
            "{% if a %}".repeat(10_000) + &"{% endif %}".repeat(10_000),
            format!("{{{{ {}a{} }}}}", "(".repeat(10_000), ")".repeat(10_000)),
            format!("{{{{ {}a }}}}", "not ".repeat(10_000)),
            format!("{{% if a %}}{}{{% endif %}}", "{% elif a %}".repeat(10_000)),
        ] {
            refusal(&page(&source));
        }
        // The deepest that passes.
        let not = "not ".repeat(140);
        let inner = format!("{{{{ {not}{}a{} }}}}", "(".repeat(16), ")".repeat(16));
        let branches = format!("{{% if a %}}{}{inner}{{% endif %}}", "{% elif a %}".repeat(64));
        let deepest = "{% for i in [a] %}".repeat(15) + &branches + &"{% endfor %}".repeat(15);
        let (_, template) = Template::compile(&page(&deepest)).unwrap();
        assert!(template.render(&data(&[("a", "")])).is_ok());
    };
    std::thread::Builder::new().stack_size(1024 * 1024).spawn(run).unwrap().join().unwrap();
}

#[test]
fn sizes_are_bounded() {
    refused(&"x ".repeat(MAX_SOURCE_BYTES), &["html", "longer than"]);
    assert!(Template::compile(&page(&"x ".repeat(MAX_SOURCE_BYTES / 2))).is_ok());
    let variables = |count: usize| (0..count).map(|n| format!("{{{{ v{n} }}}}")).collect::<String>();
    assert!(Template::compile(&page(&variables(MAX_VARIABLES))).is_ok());
    refused(&variables(MAX_VARIABLES + 1), &["different variables"]);
    refused(&format!("{{% if a %}}{}{{% endif %}}", variables(MAX_VARIABLES)), &["different variables"]);
    let slots = |count: usize| (0..count).map(|n| format!("{{{{ v ~ '{n}' }}}}")).collect::<String>();
    assert!(Template::compile(&page(&slots(MAX_SLOTS))).is_ok());
    refused(&slots(MAX_SLOTS + 1), &["different slots"]);
    let sets: String = (0..=MAX_VARIABLES).map(|n| format!("{{% set v{n} = 1 %}}")).collect();
    refused(&sets, &["names set"]);
    let three = "x ".repeat(MAX_SOURCE_BYTES / 2);
    assert!(refusal(&email(&three, Some(&three), Some(&three))).contains("before any value"));
}

#[test]
fn a_subject_is_one_line() {
    for subject in [
        "a\nb",
        "a\r\nBcc: v@y.eu",
        "a\u{0}b",
        "a\tb",
        "\u{85}",
        "{% if a %}x\ny{% endif %}",
        "{% raw %}\n\n{% endraw %}",
    ] {
        let message = refusal(&email(subject, Some("x"), None));
        assert!(message.contains("one line"), "{subject:?}: {message}");
    }
    assert!(refusal(&email("{% if a %}\n\n\nx\u{7}{% endif %}", Some("x"), None)).starts_with("subject, line 1"));
}

#[test]
fn senders_are_fixed_and_a_message_has_a_body() {
    assert!(refusal(&email("s", None, None)).contains("neither"));
    let mut source = page("x");
    if let Content::Email { from, .. } = &mut source.content {
        from.address = "{{ a }}@x.eu".to_owned();
    }
    assert!(refusal(&source).contains("from: "));
    let mut source = page("x");
    if let Content::Email { reply_to, .. } = &mut source.content {
        *reply_to = Some(Sender { address: "a@x.eu".to_owned(), name: Some("{{ a }}".to_owned()) });
    }
    assert!(refusal(&source).contains("reply_to: "));
    let content = Content::Sms { sender: "{{ a }}".to_owned(), text: "x".to_owned() };
    assert!(refusal(&TemplateSource { content, defaults: BTreeMap::new() }).contains("sender: "));
}

#[test]
fn values_are_refused_where_escaping_is_not_enough() {
    for (place, says) in [
        ("<script>var x = '{{ a }}';</script>", "inside <script>"),
        ("<SCRIPT type=x>{{ a }}</SCRIPT>", "inside <script>"),
        ("<script>'</scripty>' {{ a }}</script>", "inside <script>"),
        ("<style>p { color: {{ a }} }</style>", "inside <style>"),
        ("<iframe>{{ a }}</iframe>", "inside <iframe>"),
        ("<td width={{ a }}>", "without quotes"),
        ("<td width= {{ a }}>", "without quotes"),
        ("<td width=1{{ a }}>", "without quotes"),
        ("<a href={{ a }}>", "without quotes"),
        ("<{{ a }}>", "name of a tag"),
        ("</{{ a }}>", "name of a tag"),
        ("<p{{ a }}>", "name of a tag"),
        ("<p {{ a }}>", "an attribute"),
        ("<p {{ a }}=\"x\">", "an attribute"),
        ("<p da{{ a }}=\"x\">", "an attribute"),
        ("<p x=\"y\"{{ a }}>", "an attribute"),
        ("<!{{ a }}>", "declaration"),
        ("<!doctype {{ a }}>", "declaration"),
        ("<!--{{ a }}-->", "begin a comment"),
        ("<!--[if {{ a }}]><![endif]-->", "declaration"),
        ("<?{{ a }}?>", "declaration"),
        ("<p onclick=\"f('{{ a }}')\">", "script"),
        ("<iframe srcdoc=\"{{ a }}\">", "srcdoc"),
        ("<meta content=\"0;url={{ a }}\">", "<meta>"),
        ("<a href=\"javascript:f('{{ a }}')\">", "run a script"),
        ("<a href=\"JAVA\nSCRIPT:f()\">x</a>", "run a script"),
        ("<a href=\"{{ a }}:alert(1)\">", "scheme"),
        ("<a href=\"{% if a %}{{ a }}{% endif %}:alert(1)\">", "scheme"),
        ("<a href=\"{% for i in range(2) %}:{{ a }}{% endfor %}\">", "scheme"),
        ("<a href=\"data:text/html,{{ a }}\">", "data:"),
        ("<img src=\"data:image/png;base64,{{ a }}\">", "data:"),
        ("{% if b %}<script>{% else %}<p>{% endif %}{{ a }}", "different places"),
        ("<p {% if b %}title=\"{% endif %}{{ a }}", "different places"),
        ("{% for i in range(2) %}<p title=\"{% endfor %}{{ a }}", "different places"),
        ("<p {% if b %}href{% else %}title{% endif %}=\"{{ a }}\">", "depends on a condition"),
        ("{% macro m() %}<p title=\"{% endmacro %}{{ a }}", "whole by itself"),
        ("{% set x %}<script>{% endset %}{{ a }}", "whole by itself"),
        ("<p {% filter upper %}{{ a }}{% endfilter %}>", "between tags only"),
    ] {
        refused(&format!("\n\n{place}"), &["html, line ", says]);
        refused(&format!("\n\n{{% if c %}}{place}{{% endif %}}"), &["html, line ", says]);
        if !place.contains('\n') {
            refused(&format!("\n\n{place}"), &["html, line 3: "]);
        }
    }
}

#[test]
fn an_empty_part_is_refused_by_name() {
    for empty in ["", " \n\t", "{# nothing #}", "{{ '' }}", "{% set x = 'a' %} "] {
        let one_line = empty.replace(['\n', '\t'], " ");
        assert!(refusal(&email(&one_line, Some("x"), None)).starts_with("subject: it is empty; "), "{empty:?}");
        assert!(refusal(&email("s", Some(empty), Some("x"))).starts_with("html: it is empty; "), "{empty:?}");
        assert!(refusal(&email("s", Some("x"), Some(empty))).starts_with("text: it is empty; "), "{empty:?}");
        let content = Content::Sms { sender: "Shop".to_owned(), text: empty.to_owned() };
        let message = refusal(&TemplateSource { content, defaults: BTreeMap::new() });
        assert!(message.starts_with("text: it is empty; a text message needs"), "{empty:?}: {message}");
    }
    assert!(Template::compile(&email("{{ a }}", Some("{{ a }}"), None)).is_ok());
}

#[test]
fn a_range_without_end_is_refused_in_words() {
    for range in ["range(10**9)", "range(100001)", "range(0, 2 * 10**6)", "range(10 ** 10 ** 10)", "range(-1, 100000)"]
    {
        for around in ["\n{% for i in RANGE %}x{% endfor %}", "\n{% for i in RANGE %}{{ a }}{% endfor %}"] {
            let message = refusal(&text(&around.replace("RANGE", range)));
            assert!(message.starts_with("text, line 2: this `range` has too many numbers"), "{message}");
        }
    }
    assert!(Template::compile(&text("{% for i in range(3, 10) %}{{ a }}{% endfor %}")).is_ok());
    // What is only known when it runs is told as far as it concerns no recipient.
    let message = refusal(&text("{% set far = 10**9 %}{{ range(far)|length }}"));
    assert!(message.contains("too many elements"), "{message}");
}
