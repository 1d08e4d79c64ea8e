//! What comes in from outside and means no good: what a fuzzer has found to be of interest, and what we
//! could think of. `hostile/` says what has to hold, of `fuzz/` and of this.
#![allow(clippy::duplicate_mod, reason = "a fuzz target takes each by itself")]

mod fields;
mod headers;
mod ids;
#[cfg(unix)]
mod settings;
mod state;

use crate::support::alone;
use headers::{ENVIRONMENT, check, check_sending};
use opentelemetry::baggage::{Baggage, BaggageExt, BaggageMetadata};
use opentelemetry::{Context, Key};
use std::path::Path;

/// Asks it of every file that `fuzz/` has left of this target.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let files = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/hostile")
        .join(target);
    let mut checked = 0;
    for file in std::fs::read_dir(files).unwrap() {
        let file = file.unwrap().path();
        // Shown where the check fails.
        println!("{}", file.display());
        check(&std::fs::read(file).unwrap());
        checked += 1;
    }
    assert!(checked > 10);
}

#[test]
fn headers_that_a_fuzzer_found() {
    if alone(test_name!(), &[ENVIRONMENT]) {
        replay("headers", headers::check_file);
    }
}

#[test]
fn states_that_a_fuzzer_found() {
    replay("state", state::check);
}

#[test]
fn ids_that_a_fuzzer_found() {
    replay("ids", ids::check);
}

#[test]
fn fields_that_a_fuzzer_found() {
    replay("fields", fields::check);
}

#[cfg(unix)]
#[test]
fn settings_that_a_fuzzer_found() {
    if alone(test_name!(), &[]) {
        replay("settings", settings::check);
    }
}

#[test]
fn long_inputs() {
    if !alone(test_name!(), &[ENVIRONMENT]) {
        return;
    }
    for piece in [
        "a",
        " ",
        "%",
        "%25",
        "%2525",
        "%F0%9F%98%80",
        "%FF",
        ",",
        ";",
        "=",
        ":",
        "-",
        "\"",
        "\0",
        "é",
        "k=v,",
        "session.id=x,",
        "session.id=x;p",
        "k=%2C;p=1,",
        "session.id",
    ] {
        for times in [65, 2048] {
            let long = piece.repeat(times);
            for value in [
                long.clone(),
                format!("session.id={long}"),
                format!("session.id=x,k={long}"),
                format!("session.id=x,k=v;{long}"),
                format!("k={long},session.id=x"),
            ] {
                in_each_header(value.as_bytes());
            }
        }
    }
    in_each_header(&[b'%'; 1 << 20]);
    in_each_header(&"session.id=x,".repeat(1 << 16).into_bytes());
}

#[test]
fn inputs_that_break_headers() {
    if !alone(test_name!(), &[ENVIRONMENT]) {
        return;
    }
    for bytes in [
        "\r\nx-injected: 1",
        "\n",
        "\r",
        "\0",
        "%0D%0Ax-injected: 1",
        "%0d%0a",
        "%00",
        "%",
        "%2",
        "%zz",
        "%25%32%35",
        "%%%",
        "\u{85}",
        "%C2%85",
        "\u{2028}",
        "\u{feff}",
        "\u{7f}",
        "\t",
        "+",
        "\"",
        "\\",
        "%C3",
        "%C3%28",
        "%ED%A0%80",
        "%F4%90%80%80",
        "%C0%80",
        "é",
        ",",
        ";",
        "=",
        ";;;",
        ",,,",
        "=,=;=",
    ] {
        for value in [
            bytes.to_owned(),
            format!("a{bytes}b"),
            format!("session.id={bytes}"),
            format!("session.id=a{bytes}b"),
            format!("session.id=x,k=a{bytes}b,{bytes}=v"),
            format!("session.id=x,k=v;a{bytes}b;{bytes}"),
            format!("user.id=a{bytes}b,session.id{bytes}=y"),
            format!("session.id=x,user.id=a,session.id=x{bytes},user.id=a"),
        ] {
            in_each_header(value.as_bytes());
        }
    }
    for bytes in [
        &b"\xff"[..],
        b"\xc3",
        b"\xc3\x28",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xc0\x80",
    ] {
        in_each_header(&[b"session.id=a", bytes, b",k=", bytes, b";", bytes].concat());
        in_each_header(bytes);
    }
}

#[test]
fn many_inputs() {
    if !alone(test_name!(), &[ENVIRONMENT]) {
        return;
    }
    for name in NAMES {
        for value in ["", "session.id=x", "x", &"k=v,".repeat(70)] {
            check(&vec![(name.as_bytes(), value.as_bytes()); 5000]);
        }
    }
    let each: Vec<(String, String)> = (0..5000)
        .map(|n| (format!("b{n}"), format!("session.id={n}")))
        .chain((0..5000).map(|n| ("baggage".to_owned(), format!("k{n}=v{n}"))))
        .chain((0..5000).map(|n| ("x-session".to_owned(), n.to_string())))
        .collect();
    let each: Vec<_> = each
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    check(&each);
}

#[test]
fn baggage_of_an_application() {
    if !alone(test_name!(), &[ENVIRONMENT]) {
        return;
    }
    for text in [
        "v",
        "a,session.id=x",
        "a;b",
        "a\r\nb: c",
        "é",
        "\0",
        "%",
        " ",
        "\"a,b\"",
    ] {
        for (entries, times) in [(1, 1), (1, 4000), (64, 1), (64, 60)] {
            let entries = (0..entries).map(|n| {
                let text = text.repeat(times);
                let metadata = BaggageMetadata::from(text.as_str());
                (Key::from(format!("k{n}")), (text.into(), metadata))
            });
            let baggage: Baggage = entries.collect();
            check_sending(&Context::new().with_baggage(baggage));
        }
    }
}

const NAMES: [&str; 6] = [
    "baggage",
    "mirascope-session-id",
    "X-Session",
    "uber-trace-id",
    "traceparent",
    "b3",
];

fn in_each_header(value: &[u8]) {
    for name in NAMES {
        check(&[(name.as_bytes(), value)]);
    }
}
