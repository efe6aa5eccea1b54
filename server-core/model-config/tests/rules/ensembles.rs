//! Ensembles and the models that their steps name.

use expect_test::{Expect, expect};
use trireme_model_config::{Capabilities, CheckedConfig, Draft};

use crate::refused;

const STEP: &str = "{ model_name: \"a\" model_version: -1 input_map { key: \"x\" value: \"I\" } \
                    output_map { key: \"y\" value: \"O\" } }";

fn config(name: &str, text: &str) -> (Draft, CheckedConfig) {
    let mut draft = Draft::parse(None, text.to_owned()).unwrap();
    draft.normalise(name, &[]);
    let capabilities = Capabilities { ensemble_scheduling: true, ..Capabilities::default() };
    let (checked, _) = draft.check_for(name, &capabilities).unwrap();
    (draft, checked)
}

/// The ensemble `m` with the input I and the output O, both FP32 \[ 4 \].
fn ensemble(batch: u32, steps: &str, members: &[(&str, &str)], expected: Expect) {
    let text = format!(
        "platform: \"ensemble\" max_batch_size: {batch}\ninput {{ name: \"I\" data_type: TYPE_FP32 dims: 4 }}\n\
         output {{ name: \"O\" data_type: TYPE_FP32 dims: 4 }}\nensemble_scheduling {{ step [\n{steps}\n] }}"
    );
    let (draft, checked) = config("m", &text);
    let members: Vec<CheckedConfig> = members
        .iter()
        .map(|(name, text)| config(name, &format!("backend: \"identity\"\n{text}")).1)
        .collect();
    let names: Vec<String> =
        checked.ensemble().unwrap().step.iter().map(|step| step.model_name.clone()).collect();
    let member = |step: usize| {
        let found = members.iter().find(|member| member.name == names[step]);
        found.ok_or_else(|| format!("ensemble 'm' depends on '{}' which has no loaded version", names[step]))
    };
    let said = match draft.check_members(&checked, &member) {
        Ok(()) => "fits\n".to_owned(),
        Err(findings) => findings.iter().map(|finding| format!("{finding}\n")).collect(),
    };
    expected.assert_eq(&said);
}

fn member(batch: u32, input: &str, output: &str) -> String {
    format!("max_batch_size: {batch} input {{ name: \"x\" {input} }} output {{ name: \"y\" {output} }}")
}

const FP32: &str = "data_type: TYPE_FP32 dims: 4";

#[test]
fn members_that_fit() {
    ensemble(8, STEP, &[("a", &member(8, FP32, FP32))], expect!["fits\n"]);
    let free = "data_type: TYPE_FP32 dims: -1";
    ensemble(8, STEP, &[("a", &member(16, free, free))], expect!["fits\n"]);
    let with_batch = "data_type: TYPE_FP32 dims: [ -1, 4 ]";
    ensemble(8, STEP, &[("a", &member(0, with_batch, with_batch))], expect!["fits\n"]);
    ensemble(0, STEP, &[("a", &member(4, FP32, FP32))], expect!["fits\n"]);
}

#[test]
fn members_that_do_not_fit() {
    ensemble(
        8,
        STEP,
        &[],
        expect![[r#"
        line 5, column 3: ensemble 'm' depends on 'a' which has no loaded version
          | { model_name: "a" model_version: -1 input_map { key: "x" value: "I" } output_map { key: "y" value: "O" } }
          |   ^^^^^^^^^^
    "#]],
    );
    ensemble(
        8,
        STEP,
        &[("a", &member(4, FP32, FP32))],
        expect![[r#"
        line 5, column 3: ensemble m allows maximum batch size 8, but it contains model a which only allows maximum batch size to be 4
          | { model_name: "a" model_version: -1 input_map { key: "x" value: "I" } output_map { key: "y" value: "O" } }
          |   ^^^^^^^^^^
    "#]],
    );
    let int = "data_type: TYPE_INT32 dims: 4";
    ensemble(
        8,
        STEP,
        &[("a", &member(8, int, FP32))],
        expect![[r#"
        line 5, column 47: in ensemble m, ensemble tensor I: inconsistent data type: TYPE_FP32 is inferred from model m while TYPE_INT32 is inferred from model a
          | { model_name: "a" model_version: -1 input_map { key: "x" value: "I" } output_map { key: "y" value: "O" } }
          |                                               ^
    "#]],
    );
    let five = "data_type: TYPE_FP32 dims: 5";
    ensemble(
        8,
        STEP,
        &[("a", &member(8, FP32, five))],
        expect![[r#"
        line 5, column 82: in ensemble m, ensemble tensor O: inconsistent shape: [-1,4] is inferred from model m while [-1,5] is inferred from model a
          | { model_name: "a" model_version: -1 input_map { key: "x" value: "I" } output_map { key: "y" value: "O" } }
          |                                                                                  ^
    "#]],
    );
    let other = "max_batch_size: 8 input { name: \"z\" data_type: TYPE_FP32 dims: 4 } \
                 output { name: \"w\" data_type: TYPE_FP32 dims: 4 }";
    ensemble(
        8,
        STEP,
        &[("a", other)],
        expect![[r#"
        line 5, column 47: in ensemble m, ensemble tensor I is mapping to non-existing input x in model a
          | { model_name: "a" model_version: -1 input_map { key: "x" value: "I" } output_map { key: "y" value: "O" } }
          |                                               ^
        line 5, column 1: in ensemble m, input z in model a is not mapped to any ensemble tensors
          | { model_name: "a" model_version: -1 input_map { key: "x" value: "I" } output_map { key: "y" value: "O" } }
          | ^
        line 5, column 82: in ensemble m, ensemble tensor O is mapped from non-existing output y in model a
          | { model_name: "a" model_version: -1 input_map { key: "x" value: "I" } output_map { key: "y" value: "O" } }
          |                                                                                  ^
    "#]],
    );
}

#[test]
fn steps_in_a_circle() {
    refused(
        "platform: \"ensemble\"\ninput { name: \"I\" data_type: TYPE_FP32 dims: 1 }\n\
         output { name: \"O\" data_type: TYPE_FP32 dims: 1 }\n\
         ensemble_scheduling { step [\n\
         { model_name: \"last\" model_version: -1 input_map { key: \"a\" value: \"t\" }\n\
           output_map { key: \"b\" value: \"O\" } },\n\
         { model_name: \"one\" model_version: -1 input_map { key: \"a\" value: \"I\" }\n\
           input_map { key: \"b\" value: \"s\" } output_map { key: \"b\" value: \"t\" } },\n\
         { model_name: \"two\" model_version: -1 input_map { key: \"a\" value: \"t\" }\n\
           output_map { key: \"b\" value: \"s\" } } ] }",
        expect![[r#"
            line 7, column 1: the steps wait for each other: two -> one -> two
              | { model_name: "one" model_version: -1 input_map { key: "a" value: "I" }
              | ^
        "#]],
    );
}
