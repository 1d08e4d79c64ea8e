//! For `tests/languages/mcp_peers.py`: a server or a client in another language is at the other end.

use crate::client::{Address, Client};
use crate::process::{Outcome, Process};
use crate::report::value;
use crate::{answer, listen};
use rmcp::serde_json::{Value, json};
use std::io;
use tracing_session::{InSession, Session};

/// Starts a server, and calls its tool once in each session whose id is a line of standard input. Prints the results of the
/// tool, and the spans.
pub(crate) fn call(command: [&str; 2]) -> Outcome {
    let client = Process::start("client")?;
    let address = Address::Command(command.map(str::to_owned));
    let ids = io::read_to_string(io::stdin())?;
    client.run(async move {
        let server = Client::new(address);
        for id in ids.lines() {
            let result = answer(&server, id).in_session(Session::new(id)?);
            println!("{}", result.await?);
        }
        server.close().await
    })?;
    print_spans(&client)
}

/// Prints the address of a server, and when standard input ends, its spans.
pub(crate) fn serve() -> Outcome {
    let server = Process::start("server")?;
    println!("{}", listen(&server, true)?);
    io::copy(&mut io::stdin(), &mut io::sink())?;
    print_spans(&server)
}

fn print_spans(process: &Process) -> Outcome {
    let spans = process.take_spans()?;
    let spans = spans.iter().map(|span| {
        json!({
            "name": span.1.name,
            "session": value(span, "session.id"),
            "order": value(span, "order"),
            "trace": span.1.span_context.trace_id().to_string(),
            "id": span.1.span_context.span_id().to_string(),
            "parent": span.1.parent_span_id.to_string(),
        })
    });
    println!("{}", Value::from_iter(spans));
    Ok(())
}
