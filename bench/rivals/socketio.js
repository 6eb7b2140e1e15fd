// The npm package "socket.io": every client joins one room, each POST's JSON body is emitted to it.
//
//   node socketio.js PORT
"use strict";

const http = require("node:http");
const { Server } = require("socket.io");

const ROOM = "room:bench";

const server = http.createServer((request, response) => {
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    if (request.method === "POST") {
      io.to(ROOM).emit("event", JSON.parse(Buffer.concat(parts).toString()));
    }
    response.writeHead(204).end();
  });
});

const io = new Server(server, { transports: ["websocket"], serveClient: false });
io.on("connection", (socket) => socket.join(ROOM));
server.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 4096 });
