//! What is written for a recipient.

use super::*;
use crate::{
    message::Piece,
    template::budget::{MAX_DATA_BYTES, MAX_OUTPUT_BYTES},
};

fn text_pieces(source: &str) -> Vec<Piece> {
    match Template::compile(&text(source)).unwrap().0.body {
        Body::Email { text: Some(text), .. } => text.pieces,
        other => panic!("no text in {other:?}"),
    }
}

fn fixed(text: &str) -> Piece {
    Piece::Fixed(text.into())
}

#[test]
fn a_part_is_cut_at_its_top_level() {
    assert_eq!(
        text_pieces("Hi {{ name }},\n{% if vip %}Thanks, {{ name }}!{% endif %}\nBye"),
        [fixed("Hi "), Piece::Slot(0), fixed(",\n"), Piece::Slot(1), fixed("\nBye")],
    );
}

#[test]
fn the_same_expression_is_one_slot_in_the_same_escaping() {
    assert_eq!(
        text_pieces("{{ a }}{{ b|upper }}{{a}}{{ b|upper }}"),
        [Piece::Slot(0), Piece::Slot(1), Piece::Slot(0), Piece::Slot(1)],
    );
    let source = email("{{ a }}", Some("{{ a }}"), Some("{{ a }}"));
    let (_, template) = Template::compile(&source).unwrap();
    assert_eq!(template.render(&data(&[("a", "<\n")])).unwrap().len(), 3);
    let parts = rendered(&source, &[("a", "<\n")]).unwrap();
    assert_eq!(parts, ("< ".to_owned(), "&lt;\n".to_owned(), "<\n".to_owned()));
}

#[test]
fn whitespace_control_comments_and_raw_blocks_leave_one_fixed_piece() {
    assert_eq!(text_pieces("a {#- x -#} b{% raw %}{{ c }}{% endraw %}\n"), [fixed("ab{{ c }}")]);
    assert_eq!(text_pieces("a \n {{- x -}} \n b"), [fixed("a"), Piece::Slot(0), fixed("b")]);
}

#[test]
fn what_no_recipient_can_change_is_fixed() {
    assert_eq!(text_pieces("{{ '{{' }}{{ 6 * 7 }}{% for i in range(3) %}{{ i }},{% endfor %}"), [fixed("{{420,1,2,")]);
    assert_eq!(text_pieces("{% set year = 2026 %}© {{ year }}"), [fixed("© 2026")]);
    assert_eq!(page_for("{{ '<b>' }}", &[]), "&lt;b&gt;");
}

#[test]
fn what_is_set_reaches_the_rest_of_the_part() {
    assert_eq!(text_pieces("a{% set x = name|upper %}b{{ x }}c{{ name }}"), [fixed("a"), Piece::Slot(0)],);
    for source in [
        "{% if vip %}{% set city = 'x' %}{% endif %}{{ city }}",
        "{% macro m(a) %}[{{ a }}]{% endmacro %}{{ m(city) }}",
        "{% macro m(a) %}[{{ a }}{{ caller(2) }}]{% endmacro %}{% call(b) m(1) %}{{ b }}{{ city }}{% endcall %}",
        "{% set x %}[{{ city }}]{% endset %}{{ x }}",
        "{% filter upper %}{% set city = 'x' %}{% endfilter %}{{ city }}",
        "{% for i in [] %}{% else %}{% set city = 'x' %}{% endfor %}{{ city }}",
        "{% for i in [1] %}{% set city = 'x' %}{% endfor %}{{ city }}",
        "{% with city = 'x' %}{{ city }}{% endwith %}{{ city }}",
    ] {
        // Compares both ways of rendering.
        rendered(&email(source, Some(source), Some(source)), &[("vip", "yes"), ("city", "Köln")]).unwrap();
    }
}

#[test]
fn a_value_is_never_read_as_a_template() {
    for value in ["{{ 7*7 }}", "{% raw %}", "{{ secret }}", "{#", "${7*7}", "%recipient%"] {
        let source = email("{{ a }}", Some("{{ a }}"), Some("{{ a|trim }}{% if a %}{{ a }}{% endif %}"));
        let (subject, html, text) = rendered(&source, &[("a", value), ("secret", "leaked")]).unwrap();
        assert_eq!((subject.as_str(), html.as_str()), (value, value));
        assert_eq!(text, value.repeat(2));
    }
}

#[test]
fn a_page_escapes_values_alike_in_both_ways() {
    let value = "<a href=\"x\" title='y'>&amp;/</a>";
    let escaped = "&lt;a href=&quot;x&quot; title=&#39;y&#39;&gt;&amp;amp;/&lt;/a&gt;";
    for expr in ["a", "a|e", "a|escape", "a ~ ''", "a|string", "[a]|first", "m(a)"] {
        let page = format!("{{% macro m(x) %}}{{{{ x }}}}{{% endmacro %}}<p title=\"{{{{ {expr} }}}}\">");
        assert_eq!(page_for(&page, &[("a", value)]), format!("<p title=\"{escaped}\">"), "{expr}");
    }
    assert_eq!(page_for("{{ a }}", &[("a", value)]), escaped);
}

#[test]
fn a_subject_stays_one_line() {
    let source = email("Hi {{ a }}{{ a|upper }}{{ 'x\ny' }}", None, Some("x"));
    let (subject, ..) = rendered(&source, &[("a", "b\r\nBcc: v@y.eu")]).unwrap();
    assert_eq!(subject, "Hi b  Bcc: v@y.euB  BCC: V@Y.EUx y");
}

#[test]
fn a_variable_needs_a_value_or_a_default() {
    let missing = |name: &str| Err(RenderError::Missing { name: name.to_owned() });
    for template in [
        "{{ a }}",
        "{{ a|upper }}",
        "{{ a ~ 'x' }}",
        "{% if a %}{% endif %}",
        "{% for c in a|list %}{% endfor %}",
        "{{ a|e }}",
        "{{ a|url }}",
        "{{ a|urlencode }}",
    ] {
        let mut source = text(template);
        let (_, compiled) = Template::compile(&source).unwrap();
        assert_eq!(compiled.render(&data(&[("b", "x")])), missing("a"), "{template}");
        assert!(compiled.render(&data(&[("a", "")])).is_ok(), "{template}: empty is a value");
        source.defaults.insert("a".to_owned(), "x".to_owned());
        let (_, compiled) = Template::compile(&source).unwrap();
        assert!(compiled.needs().iter().all(|need| need.variable != "a"));
        assert!(compiled.render(&Data::default()).is_ok(), "{template}: a default stands in");
    }
    let mut source = text("{{ a }}-{{ a|upper }}");
    source.defaults.insert("a".to_owned(), "{{ d }}".to_owned());
    assert_eq!(rendered(&source, &[]).unwrap().2, "{{ d }}-{{ D }}");
    assert_eq!(rendered(&source, &[("a", "v")]).unwrap().2, "v-V");
    assert_eq!(rendered(&source, &[("a", "")]).unwrap().2, "-");
}

#[test]
fn a_template_can_do_without_what_it_asks_for() {
    let source = text("{{ nick|default('friend') }}{% if city is defined %} in {{ city }}{% endif %}");
    assert_eq!(rendered(&source, &[]).unwrap().2, "friend");
    assert_eq!(rendered(&source, &[("nick", "Ada"), ("city", "Köln")]).unwrap().2, "Ada in Köln");
}

#[test]
fn the_variables_of_a_template_are_told() {
    let source = email(
        "{{ z }}",
        Some("{% set s = b %}{{ s }}{% for i in c|split(',') %}{{ i }}{{ loop.index }}{% endfor %}"),
        Some("{% if a is defined %}{{ a }}{% endif %}{% macro m(x) %}{{ x }}{{ k }}{% endmacro %}{{ m(z) }}"),
    );
    let (_, template) = Template::compile(&source).unwrap();
    assert_eq!(template.variables(), ["a", "b", "c", "k", "z"]);
}

#[test]
fn a_link_cannot_be_made_to_run_a_script() {
    let evil =
        ["javascript:alert(1)", " JavaScript:alert(1)", "java\nscript:alert(1)", "data:text/html,x", "vbscript:x"];
    for place in [
        "<a href=\"{{ a }}\">x</a>",
        "<a href='{{ a|trim }}'>x</a>",
        "<img src=\"{{ a }}\">",
        "<a href=\"{% if b %}{{ a }}{% endif %}\">x</a>",
        "{% if b %}<a href=\"{{ a }}\">x</a>{% endif %}",
        "{% for i in range(2) %}<a href=\"{{ a }}/{{ i }}\">x</a>{% endfor %}",
        "{% macro m(x) %}{{ x }}{% endmacro %}<a href=\"{{ m(a) }}\">x</a>",
        "<v:roundrect xlink:href=\"{{ a }}\">",
        "<!--[if mso]><a href=\"{{ a }}\">x</a><![endif]-->",
        "<a href=\"{{ c }}{{ a }}\">x</a>",
    ] {
        for value in evil {
            let outcome = rendered(&page(place), &[("a", value), ("b", "x"), ("c", "")]);
            assert_eq!(outcome.map(|_| ()), Err(RenderError::UnsafeValue), "{place} with {value:?}");
        }
        let fine = rendered(&page(place), &[("a", "https://x.eu/?a=b&c"), ("b", "x"), ("c", "")]).unwrap().1;
        assert!(fine.contains("https://x.eu/?a=b&amp;c"), "{fine}");
    }
    // Where the link has begun already, a value is only text.
    let page = "<a href=\"https://x.eu/{{ a }}?q={{ a|urlencode }}\">";
    assert_eq!(page_for(page, &[("a", "data:\"")]), "<a href=\"https://x.eu/data:&quot;?q=data%3A%22\">");
    assert_eq!(page_for("<a href=\"mailto:{{ a }}\">", &[("a", "b:c")]), "<a href=\"mailto:b:c\">");
}

#[test]
fn a_style_takes_no_more_than_a_word() {
    let page = page("<td style=\"color: {{ a }}\">");
    assert_eq!(rendered(&page, &[("a", "#ff00aa")]).unwrap().1, "<td style=\"color: #ff00aa\">");
    assert_eq!(rendered(&page, &[("a", "red;background:url(//x.eu)")]), Err(RenderError::UnsafeValue));
}

#[test]
fn values_may_stand_wherever_escaping_makes_them_harmless() {
    for place in [
        "{{ a }}",
        "<p>{{ a }}</p>",
        "<td width=\"{{ a }}\" class='{{ a }}'>",
        "<title>{{ a }}</title>",
        "<textarea>{{ a }}</textarea>",
        "<!-- for {{ a }} -->",
        "<!--[if mso]><td>{{ a }}</td><![endif]--><!--[if !mso]><!-->{{ a }}<!--<![endif]-->",
        "<!doctype html><script>var x = \"</p>\";</script>{{ a }}",
        "<style>a > b { }</style><p>{{ a }}",
        "<br/>{{ a }}<img src=\"cid:logo\" alt=\"{{ a }}\"/>",
        "1 < 2 {{ a }} <3 {{ a }}",
        "<td {% if a %}class=\"x\"{% endif %}>{{ a }}",
        "<td{% if a %} class=\"x\"{% else %} id=\"{{ a }}\"{% endif %}>{{ a }}",
        "<input {% if a %}checked{% endif %}>{{ a }}",
        "<p title=\"{% for i in range(3) %}{{ a }}{% endfor %}\">{{ a }}",
        "<img src=\"data:image/png;base64,AAAA\">{{ a }}",
        "<svg><path d=\"{{ a }}\"/></svg>",
    ] {
        let page = page_for(place, &[("a", "\"><script>")]);
        assert!(!page.contains("\"><script>"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;"), "{page}");
    }
}

#[test]
fn a_long_message_is_refused_before_it_is_built() {
    let value = "x".repeat(MAX_DATA_BYTES / 2);
    let many = text(&"{{ a }}".repeat(1_000));
    let (_, template) = Template::compile(&many).unwrap();
    assert_eq!(template.render(&data(&[("a", &value)])), Err(RenderError::TooLong));
    assert!(template.render(&data(&[("a", &value[..MAX_OUTPUT_BYTES / 1_000])])).is_ok());
    assert_eq!(template.render_whole(&data(&[("a", &value)])).map(drop), Err(RenderError::TooMuchWork));
}

#[test]
fn a_recipient_has_one_budget_of_work_for_all_slots() {
    // Each of the slots would pass alone.
    let slot = |n: usize| format!("{{% for i in range(4000) %}}{{% if a == '{n}' %}}x{{% endif %}}{{% endfor %}}");
    let alone = Template::compile(&text(&slot(0))).unwrap().1;
    assert!(alone.render(&data(&[("a", "b")])).is_ok());
    let together = Template::compile(&text(&(0..10).map(slot).collect::<String>())).unwrap().1;
    assert_eq!(together.render(&data(&[("a", "b")])), Err(RenderError::TooMuchWork));
}

#[test]
fn an_operation_that_fails_is_told_without_the_value() {
    let (_, template) = Template::compile(&text("{{ a|int }}")).unwrap();
    let error = template.render(&data(&[("a", "Ada Lovelace")])).unwrap_err();
    assert!(matches!(error, RenderError::Failed(_)));
    assert!(!format!("{error} {error:?}").contains("Ada"));
}

#[test]
fn nothing_of_a_recipient_is_in_debug_output() {
    let (_, template) = Template::compile(&text("{{ a }}")).unwrap();
    let data = data(&[("a", "Ada")]);
    let shown = format!("{:?} {:?} {:?} {:?}", template, data, template.render(&data), template.render_whole(&data));
    assert!(!shown.contains("Ada"), "{shown}");
}

#[test]
fn a_text_message_has_one_part() {
    let source = TemplateSource {
        content: Content::Sms { sender: "Shop".to_owned(), text: "Hi {{ a }}{{ a|upper }}".to_owned() },
        defaults: BTreeMap::new(),
    };
    assert_eq!(rendered(&source, &[("a", "<é>")]).unwrap().2, "Hi <é><É>");
}
