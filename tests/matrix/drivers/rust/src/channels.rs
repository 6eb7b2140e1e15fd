//! phoenix_channels_client.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use phoenix_channels_client::{Channel, ChannelError, Client, Config, Payload, SendError};
use serde_json::{json, Value};

use crate::{address, next, report, text, Told};

const WITHIN: Option<Duration> = Some(Duration::from_secs(10));

fn shown(payload: &Payload) -> Value {
    match payload {
        Payload::Value(value) => value.clone(),
        Payload::Binary(bytes) => json!({"bytes": bytes}),
    }
}

async fn connect(told: &Value) -> Option<Client> {
    let socket = text(told, "as");
    let config = Config::new(address(told).as_str()).expect("an address");
    let mut client = Client::new(config).expect("an address of a socket");
    match client.connect().await {
        Ok(()) => {
            report("open", &socket, json!({}));
            Some(client)
        }
        Err(error) => {
            report("error", &socket, json!({"text": error.to_string()}));
            None
        }
    }
}

async fn join(client: &Client, told: &Value) -> Option<Arc<Channel>> {
    let (socket, topic) = (text(told, "as"), text(told, "topic"));
    match client.join(&topic, WITHIN).await {
        Ok(channel) => {
            for event in ["said", "blob"] {
                let (socket, topic) = (socket.clone(), topic.clone());
                let heard = move |_: Arc<Channel>, payload: &Payload| {
                    report("heard", &socket, json!({"topic": topic, "event": event, "payload": shown(payload)}));
                };
                channel.on(event, heard).await.expect("a channel that is joined");
            }
            report("joined", &socket, json!({"topic": topic, "response": {}}));
            Some(channel)
        }
        Err(ChannelError::JoinFailed(reason)) => {
            report("refused", &socket, json!({"topic": topic, "response": shown(&reason)}));
            None
        }
        Err(error) => {
            report("error", &socket, json!({"text": error.to_string()}));
            None
        }
    }
}

async fn push(channel: &Channel, socket: &str, event: String, payload: Value) {
    let (status, response) = match channel.send(event, payload).await {
        Ok(response) => ("ok", shown(&response)),
        Err(SendError::Reply(response)) => ("error", shown(&response)),
        Err(error) => return report("error", socket, json!({"text": error.to_string()})),
    };
    report("answer", socket, json!({"status": status, "response": response}));
}

pub async fn follow(mut lines: Told) {
    let mut clients = HashMap::new();
    let mut channels = HashMap::new();
    while let Some(told) = next(&mut lines).await {
        let (socket, topic) = (text(&told, "as"), text(&told, "topic"));
        let key = (socket.clone(), topic.clone());
        match text(&told, "do").as_str() {
            "connect" => {
                if let Some(client) = connect(&told).await {
                    clients.insert(socket, client);
                }
            }
            "join" => {
                if let Some(channel) = join(&clients[&socket], &told).await {
                    channels.insert(key, channel);
                }
            }
            "push" => push(&channels[&key], &socket, text(&told, "event"), told["payload"].clone()).await,
            "leave" => {
                channels[&key].leave().await;
                // It awaits no answer to that; the answer to something later is as good.
                clients[&socket].join(&format!("{topic}-later"), WITHIN).await.ok();
                report("left", &socket, json!({}));
            }
            _ => {}
        }
    }
}
