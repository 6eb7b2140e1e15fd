//! Drives two crates: `matrix phoenix_channels_client` or `matrix phoenix-chan`. What a driver is told and reports stands in
//! tests/matrix/driver.py.

mod chan;
mod channels;

use std::io::Write;

use serde_json::{json, Value};
use tokio::io::{AsyncBufReadExt, BufReader, Lines, Stdin};

type Told = Lines<BufReader<Stdin>>;

/// Says what the client showed.
fn report(saw: &str, socket: &str, details: Value) {
    let mut line = json!({"saw": saw, "as": socket});
    for (key, value) in details.as_object().into_iter().flatten() {
        line[key] = value.clone();
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// The next thing to do, until standard input ends.
async fn next(lines: &mut Told) -> Option<Value> {
    let line = lines.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

fn text(told: &Value, key: &str) -> String {
    told[key].as_str().unwrap_or_default().to_owned()
}

/// The address with the token in it.
fn address(told: &Value) -> String {
    format!("{}/websocket?token={}", text(told, "url"), text(told, "token"))
}

#[tokio::main]
async fn main() {
    let lines = BufReader::new(tokio::io::stdin()).lines();
    match std::env::args().nth(1).as_deref() {
        Some("phoenix-chan") => chan::follow(lines).await,
        _ => channels::follow(lines).await,
    }
}
