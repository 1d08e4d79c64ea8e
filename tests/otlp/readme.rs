//! The README: its program, its diff, and its length.

use crate::otlp::receiver::Receiver;
use crate::support;

// The program as a whole, so that `main` is the README's.
include!("readme_program.rs");

const README: &str = include_str!("../../README.md");

/// The code blocks of this kind, such as `diff`.
fn blocks(kind: &str) -> Vec<&'static str> {
    let blocks = README.split("```").skip(1).step_by(2);
    let blocks = blocks.filter_map(|block| block.split_once('\n'));
    blocks
        .filter(|(found, _)| *found == kind)
        .map(|(_, text)| text)
        .collect()
}

#[test]
fn program_is_the_one_that_is_run_here() {
    let program = include_str!("readme_program.rs");
    assert_eq!(blocks("rust,no_run"), [program]);
    let lines = program.lines().filter(|line| !line.is_empty());
    assert!(lines.count() <= 15);
}

#[test]
fn program_prints_these_lines_without_a_backend() {
    const VARIABLES: [(&str, &str); 2] = [
        ("OTEL_TRACES_EXPORTER", "none"),
        ("TRACING_SESSION_COVERAGE", "1"),
    ];
    let Some(printed) = support::output_alone(test_name!(), &VARIABLES) else {
        return main().unwrap();
    };
    for (name, value) in VARIABLES {
        assert!(README.contains(&format!("{name}={value}")), "{name}");
    }
    let lines = blocks("text")[0].lines();
    let missing = lines.filter(|line| !printed.contains(line));
    assert_eq!(missing.collect::<Vec<_>>(), [""; 0], "{printed}");
}

#[test]
fn program_fills_the_row_of_its_session() {
    let receiver = Receiver::start();
    let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", &*receiver.url());
    if support::alone(test_name!(), &[endpoint]) {
        return main().unwrap();
    }
    assert!(README.contains(endpoint.0));
    let keys = ["session.id", "user.id", "input.value", "output.value"];
    assert_eq!(
        receiver.spans_with(&keys),
        [
            "search chat-42 u-7 - -",
            "answer chat-42 u-7 What is the weather? Sunny and 24 degrees.",
        ]
    );
}

/// The bot is compiled and run, and the share of its spans is checked.
#[test]
fn diff_is_part_of_the_one_of_the_bot() {
    let bot = include_str!("../../examples/adopt/src/after.rs");
    let [diff] = blocks("diff")[..] else {
        panic!("not one diff")
    };
    let mut added = diff.lines().filter_map(|line| line.strip_prefix('+'));
    // The bot imports more names.
    let missing = added.find(|line| !bot.contains(line.trim().trim_end_matches(['}', ';'])));
    assert_eq!(missing, None);
    for change in ["in_current_span()", "Span::current()", "mark_trace()"] {
        assert!(bot.contains(change) && README.contains(change), "{change}");
    }
}

#[test]
fn readme_is_short_and_hides_no_lines() {
    assert!(README.lines().count() <= 200);
    assert!(README.split_whitespace().count() <= 1_100);
    let code = blocks("rust").concat() + &blocks("rust,no_run").concat();
    assert!(!code.lines().any(|line| line.starts_with("# ")));
}
