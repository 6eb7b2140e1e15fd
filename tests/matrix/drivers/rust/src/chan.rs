//! phoenix-chan, which sends and receives; what belongs together its application has to know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use phoenix_chan::{Client, Error};
use serde_json::{json, Value};
use tokio::sync::Mutex;

use crate::{address, next, report, text, Told};

/// What was asked of the server, and of which topic, by ref.
type Asked = Arc<Mutex<HashMap<String, &'static str>>>;

async fn connect(told: &Value) -> Option<Arc<Client>> {
    let socket = text(told, "as");
    let mut builder = Client::builder(address(told).parse().expect("an address")).expect("an address");
    if let Some(beat @ 1..) = told["beat"].as_u64() {
        builder = builder.heartbeat(Duration::from_millis(beat));
    }
    match builder.connect().await {
        Ok(client) => {
            report("open", &socket, json!({}));
            Some(Arc::new(client))
        }
        Err(error) => {
            report("error", &socket, json!({"text": error.to_string()}));
            None
        }
    }
}

/// Reports what comes, until the connection ends.
async fn hear(client: Arc<Client>, socket: String, asked: Asked) {
    loop {
        let message = match client.recv::<Value>().await {
            Ok(message) => message,
            Err(error @ (Error::WebSocketMessageType(_) | Error::Deserialize(_))) => {
                report("thrown", "any", json!({"text": error.to_string()}));
                continue;
            }
            Err(_) => return report("closed", &socket, json!({})),
        };
        let topic = message.topic_name;
        if message.event_name != "phx_reply" {
            let heard = json!({"topic": topic, "event": message.event_name, "payload": message.payload});
            report("heard", &socket, heard);
            continue;
        }
        let response = message.payload["response"].clone();
        let ok = message.payload["status"] == "ok";
        let what = asked.lock().await.remove(&message.message_reference.unwrap_or_default());
        match what {
            Some("join") => {
                let saw = if ok { "joined" } else { "refused" };
                report(saw, &socket, json!({"topic": topic, "response": response}));
            }
            Some("leave") => report("left", &socket, json!({})),
            Some(_) => report("answer", &socket, json!({"status": message.payload["status"], "response": response})),
            None => {}
        }
    }
}

pub async fn follow(mut lines: Told) {
    let mut clients: HashMap<String, (Arc<Client>, Asked)> = HashMap::new();
    while let Some(told) = next(&mut lines).await {
        let (socket, topic) = (text(&told, "as"), text(&told, "topic"));
        let what = text(&told, "do");
        if what == "connect" {
            if let Some(client) = connect(&told).await {
                let asked = Asked::default();
                tokio::spawn(hear(client.clone(), socket.clone(), asked.clone()));
                clients.insert(socket, (client, asked));
            }
            continue;
        }
        let Some((client, asked)) = clients.get(&socket) else { continue };
        let mut asked = asked.lock().await; // until the ref is known; the answer waits for that
        let (kind, sent) = match what.as_str() {
            "join" => ("join", client.join(&topic).await),
            "leave" => ("leave", client.leave(&topic).await),
            "push" => ("push", client.send(&topic, &text(&told, "event"), told["payload"].clone()).await),
            _ => continue,
        };
        match sent {
            Ok(reference) => drop(asked.insert(reference.to_string(), kind)),
            Err(error) => report("error", &socket, json!({"text": error.to_string()})),
        }
    }
}
