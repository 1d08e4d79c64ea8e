//! Instructions, counted by callgrind. Each case is a process of its own. [`per_item`] runs it twice with different
//! numbers of rounds: the difference leaves out what starting and stopping cost. [`in_function`] counts one function alone.
#![allow(dead_code, reason = "a benchmark counts in one way")]

use std::process::Command;

/// What a further item costs where a round has `items` of them. This program is run with the
/// arguments `--run`, the shape, the case and the number of rounds.
pub(crate) fn per_item(shape: &str, case: &str, items: u64) -> Result<f64, String> {
    let few = 650_u64.div_ceil(items);
    let many = 5 * few;
    let count = |rounds: u64| count(&[shape, case, &rounds.to_string()], &[]);
    let further = count(many)? - count(few)?;
    Ok(further as f64 / ((many - few) * items) as f64)
}

/// What one function of this program costs with all that it calls. What is done before isn't counted, however long it takes.
/// This program is run with `--run` and these arguments.
pub(crate) fn in_function(function: &str, args: &[&str]) -> Result<u64, String> {
    count(args, &[&format!("--toggle-collect={function}")])
}

/// glibc copies memory in steps of 16 bytes, for which every stack and every allocation is aligned. With larger steps a copy
/// takes up to 30 instructions more where it isn't, as the frames of unrelated functions and the length of a path decide.
const COPY_IN_SMALL_STEPS: &str = "glibc.cpu.hwcaps=-AVX_Fast_Unaligned_Load";

fn count(args: &[&str], options: &[&str]) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args(options)
        .arg(this)
        .arg("--run")
        .args(args)
        .env("GLIBC_TUNABLES", COPY_IN_SMALL_STEPS)
        .output()
        .map_err(|error| format!("valgrind: {error}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected = text
        .lines()
        .find_map(|line| line.split_once("Collected : "));
    let (_, collected) = collected.ok_or_else(|| format!("no count in:\n{text}"))?;
    collected
        .trim()
        .parse()
        .map_err(|error| format!("{collected}: {error}"))
}
