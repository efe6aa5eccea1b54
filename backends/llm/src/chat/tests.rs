#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::time::{Duration, UNIX_EPOCH};

use expect_test::{Expect, expect};

use super::*;

fn template(text: &str) -> Result<ChatTemplate, ChatError> {
    let token = |t: &str| Some(t.to_owned());
    let source = ChatTemplateSource { text: text.into(), bos_token: token("<s>"), eos_token: token("</s>") };
    ChatTemplate::new(&source)
}

fn render(text: &str) -> Result<String, ChatError> {
    let options =
        ChatOptions { now: UNIX_EPOCH + Duration::from_secs(1_735_689_599), ..ChatOptions::default() };
    let messages = [ChatMessage::new("user", " Hi <b> "), ChatMessage::new("assistant", "Hello")];
    template(text)?.render(&messages, &options)
}

#[track_caller]
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&match render(text) {
        Ok(prompt) => prompt,
        Err(e) => format!("error: {e}"),
    });
}

#[test]
fn templates_of_the_usual_kinds() {
    check(
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}]{{ m.content.strip() }}{{ eos_token }}{% endfor %}{% if add_generation_prompt %}>{% endif %}",
        expect!["<s>[user]Hi <b></s>[assistant]Hello</s>>"],
    );
    check(
        "{% for m in messages %}\n    {%- if m.role == 'user' %}\nU{{ m.content | trim }}\n    {% endif %}\n{% endfor %}\n",
        expect![[r#"
        UHi <b>
    "#]],
    );
    check(
        "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.role.upper() }}{% endfor %}",
        expect!["USER"],
    );
    check(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}{{ messages[0].get('name', '-') }}{{ tools is defined }}",
        expect!["2-False"],
    );
    check("{{ strftime_now('%d %b %Y') }}", expect!["31 Dec 2024"]);
    check(
        "{{ messages[1] | tojson }} {{ {'a': [1, 'é<']} | tojson(indent=2) }}",
        expect![[r#"
        {"role": "assistant", "content": "Hello"} {
          "a": [
            1,
            "é<"
          ]
        }"#]],
    );
}

#[test]
fn what_transformers_adds_to_jinja() {
    check(
        "{% for m in messages %}\n{%- if m.role == 'assistant' %}{%- generation -%} {{ m.content }} {%- endgeneration %}!{% endif %}{% endfor %}{{ '{%' }} generations",
        expect!["Hello!{% generations"],
    );
    check(
        "{{ {'b': {'d': 1, 'c': [1, 2]}, 'a': 2} | tojson(sort_keys=true, separators=(',', ':')) }}",
        expect![[r#"{"a":2,"b":{"c":[1,2],"d":1}}"#]],
    );
    assert!(render("{{ 1 | tojson(separators=[',']) }}").unwrap_err().text.contains("two texts"));
}

#[test]
fn errors_name_the_line() {
    check(
        "a\n{{ raise_exception('roles must alternate') }}",
        expect!["error: chat template line 2: roles must alternate"],
    );
    check(
        "a\n\n{% for %}",
        expect!["error: chat template line 3: syntax error: unexpected end of block, expected in"],
    );
    check(
        "{% include 'etc/passwd' %}",
        expect!["error: chat template line 1: syntax error: unknown statement include"],
    );
    check("x\n{{ nothing.at.all }}", expect!["error: chat template line 2: undefined value"]);
}

#[test]
fn endless_and_swelling_templates_end() {
    let all = "{% for a in range(9999) %}{% for a in range(9999) %}{% for a in range(9999) %}x{% endfor %}{% endfor %}{% endfor %}";
    assert!(render(all).is_err());
    let doubling = "{% set ns = namespace(s='xxxxxxxxxxxxxxxx') %}{% for a in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}";
    assert!(render(doubling).is_err());
    let recursive = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(render(recursive).is_err());
    let long = format!("{{% for a in range(9999) %}}{}{{% endfor %}}", "x".repeat(10_000));
    expect!["chat template: the prompt is over the limit of 67108864 bytes"]
        .assert_eq(&render(&long).unwrap_err().to_string());
}
