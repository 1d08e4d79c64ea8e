//! Instructions, counted by callgrind. Each case is a process of its own, run twice with different
//! numbers of rounds: the difference leaves out what starting and stopping cost.

use std::process::Command;

/// What a further item costs where a round has `items` of them. This program is run with the
/// arguments `--run`, the shape, the case and the number of rounds.
pub(crate) fn per_item(shape: &str, case: &str, items: u64) -> Result<f64, String> {
    let few = 650_u64.div_ceil(items);
    let many = 5 * few;
    // Copying takes some 30 instructions more where the stack is aligned to 16 bytes and not to 32,
    // as the length of a path decides. Of both, the fewer count.
    let further = |alignment| -> Result<u64, String> {
        Ok(count(shape, case, many, alignment)? - count(shape, case, few, alignment)?)
    };
    let further = further("")?.min(further("sixteen bytes..")?);
    Ok(further as f64 / ((many - few) * items) as f64)
}

fn count(shape: &str, case: &str, rounds: u64, alignment: &str) -> Result<u64, String> {
    let this = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .args(["--run", shape, case, &rounds.to_string()])
        .env("ALIGNMENT", alignment)
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
