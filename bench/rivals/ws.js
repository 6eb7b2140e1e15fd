// The npm package "ws": sends each POST's body to every client as one text message.
//
//   node ws.js PORT
"use strict";

const http = require("node:http");
const { WebSocket, WebSocketServer } = require("ws");

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    if (request.method === "POST") {
      const message = Buffer.concat(parts);
      for (const client of sockets.clients) {
        if (client.readyState === WebSocket.OPEN) client.send(message, { binary: false });
      }
    }
    response.writeHead(204).end();
  });
});

const sockets = new WebSocketServer({ server });
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
